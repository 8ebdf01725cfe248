import ArgumentParser
import Testing

@testable import martlet

@Suite("What a command ends with")
struct ExitCodeTests {
    private func ending(_ arguments: [String]) -> Martlet.Outcome? {
        do {
            var command = try Martlet.parseAsRoot(arguments)
            // Help is a command of its own, whose run ends with the text.
            if !(command is any AsyncParsableCommand) { try command.run() }
            return nil
        } catch {
            return Martlet.Outcome(of: error)
        }
    }

    @Test("an unknown flag is usage: code 2, one sentence, and where help is")
    func unknownFlag() throws {
        let outcome = try #require(ending(["config", "env-example", "--frobnicate"]))
        #expect(outcome.code == 2)
        #expect(outcome.output == nil)
        #expect(
            outcome.sentence == "Unknown option '--frobnicate'. See 'martlet config env-example --help'.")
    }

    @Test("an unknown subcommand is usage")
    func unknownSubcommand() throws {
        let outcome = try #require(ending(["fly"]))
        #expect(outcome.code == 2)
        #expect(outcome.sentence?.contains("\n") == false)
    }

    @Test("what is no address of HTTP is usage for healthcheck, which help lists")
    func healthcheck() throws {
        for url in ["foo", "https://", "ws://h:1/ws", "http://", "http://h:70000/"] {
            let outcome = try #require(ending(["healthcheck", url]))
            #expect(outcome.code == 2)
            #expect(outcome.sentence?.contains("http://host:port/path") == true)
        }
        #expect(ending(["--help"])?.output?.contains("healthcheck") == true)
    }

    @Test(
        "without a URL healthcheck asks the internal port of the node that the settings make, TLS or not",
        arguments: [
            ([:], "http://127.0.0.1:9081/readyz"),
            (
                ["MARTLET_PORT": "8443", "MARTLET_TLS_CERT": "/c", "MARTLET_TLS_KEY": "/k"],
                "http://127.0.0.1:9443/readyz"
            ),
            (["MARTLET_PORT": "0", "MARTLET_INTERNAL_PORT": "70"], "http://127.0.0.1:70/readyz"),
            (["MARTLET_INTERNAL_HOST": "::"], "http://[::1]:9081/readyz"),
            (["MARTLET_INTERNAL_PORT": "0"], nil), (["MARTLET_PORT": "0"], nil),
        ] as [([String: String], String?)])
    func healthcheckOfSettings(environment: [String: String], url: String?) throws {
        let settings = try Settings(environment: environment)
        #expect((try? HealthcheckCommand.readiness(of: settings)) == url)
    }

    @Test("help is not an error: code 0, on stdout")
    func help() throws {
        let outcome = try #require(ending(["--help"]))
        #expect(outcome.code == 0)
        #expect(outcome.sentence == nil)
        #expect(outcome.output?.contains("USAGE") == true)
    }

    @Test("a failure keeps its code and sentence")
    func failure() {
        #expect(Martlet.Outcome(of: Failure(.redisUnreachable, "no Redis")).code == 3)
        #expect(Martlet.Outcome(of: Failure(.failed, "no room")).sentence == "no room")
    }
}
