import ArgumentParser
import Testing

@testable import martlet

@Suite("martlet token mint")
struct TokenCommandTests {
    @Test(
        "a user name that no server takes, or a time that is none, is a usage error",
        arguments: [
            ["a\nb"], [""], ["alice", "--hours", "0"], ["alice", "--expires-in", "15"],
            ["alice", "--expires-in", "3651d"],
        ])
    func usage(arguments: [String]) {
        #expect(throws: (any Error).self) {
            let command = try TokenMintCommand.parse(arguments)
            try command.run()
        }
    }

    @Test("without a secret it says which setting is missing")
    func noSecret() throws {
        let failure = #expect(throws: Failure.self) {
            let command = try TokenMintCommand.parse(["alice"])
            try command.run()
        }
        #expect(failure?.sentence.contains("MARTLET_TOKEN_SECRET") == true)
    }
}
