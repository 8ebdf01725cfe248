import ArgumentParser
import Foundation
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

@Suite("martlet token keygen")
struct TokenKeygenTests {
    private func inFolder(_ body: (URL) throws -> Void) throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "martlet-keygen-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try body(folder)
    }

    private func names(_ folder: URL) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted()
    }

    @Test("it makes both files or none, says which was in the way, and leaves that one as it was")
    func bothOrNone() throws {
        try inFolder { folder in
            let path = { (name: String) in folder.appending(path: name).path }
            try "old".write(toFile: path("there"), atomically: true, encoding: .utf8)
            for (out, other, word) in [
                ("new", "there", "\(path("there")) is there already, and is not written over"),
                ("there", "new", "\(path("there")) is there already, and is not written over"),
                ("new", "none/new", "\(path("none/new")) cannot be made: No such file or directory"),
                ("new", "new", "\(path("new")) is there already, and is not written over"),
            ] {
                let failure = #expect(throws: Failure.self) {
                    try TokenKeygenCommand.parse(["--out", path(out), "--public", path(other)]).run()
                }
                #expect(failure?.sentence == word)
                #expect(try names(folder) == ["there"])
            }
            #expect(try String(contentsOfFile: path("there"), encoding: .utf8) == "old")
            try TokenKeygenCommand.parse(["--out", path("one"), "--public", path("two")]).run()
            #expect(try names(folder) == ["one", "there", "two"])
            let mode = try FileManager.default.attributesOfItem(atPath: path("one"))[.posixPermissions] as? Int
            #expect(mode == 0o600)
        }
    }
}
