import ChatCore
import Glibc
import NIOCore
import Testing

@testable import martlet

@Suite("The configuration file")
struct ConfigurationFileTests {
    private func file(_ text: String) -> ConfigurationFile {
        ConfigurationReader.read(Array(text.utf8), name: "m.json")
    }

    private func settings(
        _ text: String, environment: [String: String] = [:], flags: [String: String?] = [:]
    ) throws -> Settings {
        let file = file(text)
        #expect(file.problems == [])
        return try Settings(Sources(environment: environment, flags: flags, file: file))
    }

    @Test("settings stand in it by their names in lower case, as numbers, words, switches, lists or text")
    func settings() throws {
        let settings = try settings(
            """
            {
              "port": 9000, "lease_seconds": 1.5, "heartbeat_seconds": "7", "compression": true, "auth": "none",
              "trusted_proxies": ["10.0.0.0/8", "::1"], "redis_prefix": "caf\\u0065"
            }
            """)
        #expect(settings.port == 9000)
        #expect(settings.lease == .milliseconds(1500))
        #expect(settings.heartbeat == .seconds(7))
        #expect(settings.compression == .on)
        #expect(settings.auth == .none)
        #expect(settings.trustedProxies?.count == 2)
        #expect(settings.redisPrefix == "cafe")
        let given = Settings.Given(name: "m.json:2: “auth”", shown: "none", origin: "m.json:2")
        #expect(settings.given["MARTLET_AUTH"] == given)
    }

    @Test("a flag wins over the environment, the environment over the file, the file over the default")
    func precedence() throws {
        let text = #"{"port": 1, "host": "::1", "redis_prefix": "file", "auth": "none"}"#
        let settings = try settings(
            text, environment: ["MARTLET_PORT": "2", "MARTLET_HOST": "::2", "MARTLET_AUTH": ""],
            flags: ["MARTLET_PORT": "3"])
        #expect(settings.port == 3)
        #expect(settings.host == "::2")
        #expect(settings.redisPrefix == "file")
        #expect(settings.auth == .none)
        #expect(settings.given["MARTLET_PORT"]?.origin == "--port")
        #expect(settings.given["MARTLET_HOST"]?.origin == "environment")
    }

    @Test("a namespace goes by default_namespace in what it leaves out, and that by the settings")
    func namespaces() throws {
        let settings = try settings(
            """
            {
              "history_messages": 7, "history_seconds": 60,
              "namespaces": {
                "team": {"allow": ["join", "history"], "history": {"age": "7d"}, "messages_per_second": 5},
                "live": {"allow": [], "history": {"messages": 0}, "presence": false, "message_bytes": 100},
                "a/b.c": {"messages_per_second": 0}, "dm": {}
              },
              "default_namespace": {"presence": true, "messages_per_second": 2, "messages_burst": 9}
            }
            """)
        var standard = NamespaceRules()
        standard.historyMessages = 7
        standard.historyMilliseconds = 60_000
        standard.messagesPerSecond = 2
        standard.messageBurst = 9
        var team = standard
        team.allows = [.join, .history]
        team.historyMilliseconds = 604_800_000
        team.messagesPerSecond = 5
        team.messageBurst = 10
        var live = standard
        live.allows = []
        live.historyMessages = 0
        live.showsPresence = false
        live.messageBytes = 100
        var free = standard
        free.messagesPerSecond = nil
        free.messageBurst = nil
        let named = ["team": team, "live": live, "a/b.c": free, "dm": standard]
        #expect(settings.namespaces == Namespaces(standard: standard, named: named))
    }

    @Test(
        "a mistake is told in one sentence with file, line, column and name",
        arguments: [
            (
                "{\"port\": 80\n,\n \"limit_mesages_burst\": 1}",
                "3:2: nothing is called “limit_mesages_burst”; the nearest is “limit_messages_burst”"
            ),
            (#"{"MARTLET_PORT": 1}"#, "1:2: nothing is called “MARTLET_PORT”; the nearest is “port”"),
            (#"{"config": "x"}"#, "1:2: nothing is called “config”; the nearest is “host”"),
            (#"{"é": 1, "port": true}"#, "1:2: nothing is called “é”; the nearest is “auth”"),
            (#"{"port": true}"#, "1:10: “port” is true, but must be a whole number from 0 to 65535"),
            (#"{"host": 5}"#, "1:10: “host” is a number, but must be a host name or an address"),
            (#"{"port": 70000}"#, "1:10: “port” is “70000”, but must be a whole number from 0 to 65535"),
            (#"{"port": 1e3}"#, "1:10: “port” is “1e3”, but must be a whole number from 0 to 65535"),
            (#"{"token_secret": "hunter2"}"#, "1:18: “token_secret” is of 7 bytes, but must be at least 32 bytes"),
            (#"{"token_secret": 1234567}"#, "1:18: “token_secret” is a number, but must be at least 32 bytes"),
            (
                #"{"redis_url": "redis://u:hunter2@h:99999"}"#,
                "1:15: “redis_url”: the port in the Redis URL must be a number from 1 to 65535"
            ),
            ("{\"port\": 1,\n\"port\": 2}", "2:1: “port” stands here a second time; the first is on line 1"),
            (
                #"{"trusted_proxies": ["::1", 5]}"#,
                "1:21: “trusted_proxies” is a list, but must be a comma-separated list of addresses or CIDR blocks"
            ),
            (#"{"namespaces": []}"#, "1:16: “namespaces” is a list, but must be an object: { … }"),
            (
                #"{"namespaces": {"a:b": {}}}"#,
                "1:17: “namespaces.a:b” cannot be a namespace: its name must be 1 to 128 characters of A-Z a-z 0-9 _ . @ / -"
            ),
            (
                #"{"namespaces": {"a": {"allow": ["join", "writ"]}}}"#,
                "1:41: “namespaces.a.allow” has “writ”, but may have join, publish, presence, history; the nearest is “join”"
            ),
            (
                #"{"namespaces": {"a": {"allow": "join"}}}"#,
                "1:32: “namespaces.a.allow” is “join”, but must be a list of join, publish, presence, history"
            ),
            (
                #"{"namespaces": {"a": {"history": {"age": "7w"}}}}"#,
                "1:42: “namespaces.a.history.age” is “7w”, but must be an age from 1s to 365d, like 90s, 30m, 12h or 7d"
            ),
            (
                #"{"namespaces": {"a": {"history": {"size": 1}}}}"#,
                "1:35: nothing is called “namespaces.a.history.size”; the nearest is “age”"
            ),
            (
                #"{"default_namespace": {"presence": 1}}"#,
                "1:36: “default_namespace.presence” is 1, but must be true or false"
            ),
            (
                #"{"default_namespace": {"message_bytes": -1}}"#,
                "1:41: “default_namespace.message_bytes” is -1, but must be a whole number from 1 to 16777216"
            ),
            (
                #"{"default_namespace": {"messages_burst": 1}}"#,
                "1:1: “default_namespace.messages_burst” needs messages_per_second, of which it is the burst"
            ),
            ("{\n  \"port\": 1,\n}", "3:1: this is no JSON: “}” cannot stand here"),
            ("{\n  // the port\n  \"port\": 1}", "2:3: this is no JSON: “/” cannot stand here"),
            ("{\"port\": 1", "1:11: the text ends here, before the object that it must be: { … }"),
            ("", "1:1: the text ends here, before the object that it must be: { … }"),
            ("[]", "1:1: this is no JSON: “[” cannot stand here"),
        ])
    func mistakes(text: String, sentence: String) {
        #expect(file(text).problems.first == "m.json:" + sentence)
    }

    @Test("all mistakes are told at once, in the order of the text, up to the first of grammar")
    func allMistakes() {
        let text = """
            {
              "namespaces": {"a": {"messages_burst": 5}, "b": {"alow": []}},
              "prot": 1,
              "host": null,
              "port": tru
            }
            """
        #expect(file(text).mistakes.map(\.line) == [2, 3, 4, 5])
        let many = "{" + (0..<300).map { "\"x\($0)\": 1" }.joined(separator: ",") + "}"
        #expect(file(many).mistakes.count == ConfigurationFile.maximumMistakes)
    }

    @Test("T17: what is no UTF-8, nested without end or endless in a line is refused and shown in short")
    func hostile() {
        #expect(
            ConfigurationReader.read(Array("{\"port\":\n\"".utf8) + [0xFF], name: "m.json").problems
                == ["m.json:2:1: this line is not UTF-8 text"])
        let deep = String(repeating: #"{"a":"#, count: 100)
        #expect(file(deep).problems == ["m.json:1:1: this is nested deeper than 64 levels"])
        let long = file(#"{"\#(String(repeating: "k", count: 100_000))": 1}"#).problems
        #expect(long.count == 1 && long[0].utf8.count < 200)
        #expect(file(#"{"a\u001b[2J": 1}"#).problems[0].contains(#"a\u{1b}[2J"#))
    }

    @Test("a namespace cannot allow larger messages than the node")
    func namespaceFitsNode() {
        let file = file("{\n\"default_namespace\": {},\n\"namespaces\": {\"a\": {\n\"message_bytes\": 100000}}}")
        let error = #expect(throws: Failure.self) { try Settings(Sources(file: file)) }
        #expect(
            error?.sentence
                == "m.json:4: “namespaces.a.message_bytes” is 100000, but must be at most limit_message_bytes, which is 65536"
        )
    }

    @Test("T28: the effective settings say where each comes from, and hide secrets")
    func effective() throws {
        let settings = try settings(
            """
            {
              "token_secret": "0123456789abcdef0123456789abcdef", "token_jwks_url": "https://id.example/k?code=hunter2",
              "redis_url": "redis://me:hunter2@h:1",
              "default_namespace": {"presence": false},
              "namespaces": {"team": {"history": {"messages": 5}, "messages_per_second": 7}}
            }
            """, environment: ["MARTLET_PORT": "9000"])
        let values = EffectiveValue.all(of: settings)
        func value(_ name: String) -> EffectiveValue? { values.first { $0.name == name } }
        func expect(_ name: String, _ text: String?, _ origin: String) {
            #expect(value(name) == EffectiveValue(name: name, value: text, origin: origin))
        }
        expect("port", "9000", "environment")
        expect("host", "127.0.0.1", "default")
        expect("node_name", nil, "default")
        expect("token_secret", "(32 bytes)", "m.json:2")
        expect("token_jwks_url", "https://id.example/k", "m.json:2")
        expect("redis_url", "redis://me:***@h:1/0", "m.json:3")
        expect("default_namespace.presence", "false", "m.json:4")
        expect("default_namespace.history.age", "1d", "history_seconds")
        expect("namespaces.team.presence", "false", "default_namespace")
        expect("namespaces.team.history.messages", "5", "m.json:5")
        expect("namespaces.team.messages_per_second", "7", "m.json:5")
        expect("namespaces.team.messages_burst", "14", "messages_per_second")
        #expect(!EffectiveValue.json(values).contains("hunter2"))
        let error = #expect(throws: Failure.self) {
            try Settings(environment: ["MARTLET_TOKEN_JWKS_URL": "https://me:hunter2@id.example/"])
        }
        #expect(error?.sentence == "MARTLET_TOKEN_JWKS_URL: it must not hold a user name")
        #expect(EffectiveValue.json(values).contains(#""port":{"value":"9000","origin":"environment"}"#))
    }

    @Test(
        "what is wrong of several settings together names those of a file by place and name, others by key or flag",
        arguments: [
            (
                #""limit_outbound_bytes": 65536"#, [:],
                "MARTLET_LIMIT_MESSAGE_BYTES is 65536, but must be at most a quarter of m.json:2: “limit_outbound_bytes”,"
                    + " which is 65536"
            ),
            (#""tls_cert": "c.pem""#, [:], "m.json:2: “tls_cert” is set, which needs MARTLET_TLS_KEY"),
            (
                #""tls_cert": "c.pem, d.pem""#, ["MARTLET_TLS_KEY": "k.pem"],
                "m.json:2: “tls_cert” names 2 and MARTLET_TLS_KEY 1: each certificate has a key"
            ),
            (
                #""tls_cert": "/nowhere""#, ["MARTLET_TLS_KEY": "k.pem"],
                "m.json:2: “tls_cert”, MARTLET_TLS_KEY cannot be used: /nowhere cannot be read: No such file or directory"
            ),
            (#""node_tls_name": "nodes""#, [:], "m.json:2: “node_tls_name” is set, which needs MARTLET_NODE_TLS_CA"),
            (
                #""token_jwks_ca": "c.pem""#, ["MARTLET_TOKEN_SECRET": "0123456789abcdef0123456789abcdef"],
                "m.json:2: “token_jwks_ca” is set, which needs MARTLET_TOKEN_JWKS_URL"
            ),
            (
                #""token_keys": "/nowhere""#, [:],
                "m.json:2: “token_keys”: /nowhere cannot be read: No such file or directory"
            ),
            (
                #""redis_url": "rediss://h", "redis_tls_ca": "/nowhere""#, [:],
                "m.json:2: “redis_tls_ca”: /nowhere cannot be read: No such file or directory"
            ),
            (
                #""redis_url": "redis://h", "redis_tls_ca": "c.pem""#, [:],
                "m.json:2: “redis_url”: settings of TLS to Redis are given, but the URL is not rediss://"
            ),
        ] as [(String, [String: String], String)])
    func wrongTogether(line: String, environment: [String: String], sentence: String) {
        let error = #expect(throws: Failure.self) {
            let settings = try settings("{\n  \(line)\n}", environment: environment)
            _ = try settings.serverTLS()
            _ = try settings.nodeTLS()
            _ = try settings.redisConfiguration()
            _ = try settings.tokenChecks()
        }
        #expect(error?.sentence == sentence)
    }

    @Test("a file that cannot be read is named with the reason")
    func unreadable() {
        let error = #expect(throws: Failure.self) { try Settings(environment: ["MARTLET_CONFIG": "/nowhere/m.json"]) }
        #expect(
            error
                == Failure(.usage, "the configuration /nowhere/m.json cannot be read: No such file or directory"))
        #expect(throws: Failure.self) { try Settings(environment: [:], flags: ["MARTLET_CONFIG": "/"]) }
    }

    @Test("the example of docs has no mistake")
    func example() throws {
        let root = #filePath.split(separator: "/").dropLast(3).map { "/" + $0 }.joined()
        // The checkout may have been built under another path than it stands in now.
        let candidates = [root + "/docs/martlet.json", "docs/martlet.json"]
        let path = try #require(candidates.first { access($0, R_OK) == 0 })
        let settings = try Settings(environment: [:], flags: ["MARTLET_CONFIG": path])
        #expect(settings.namespaces.named.count > 1)
    }
}

@Suite("Secrets in files")
struct SecretFileTests {
    private let key = "0123456789abcdef0123456789abcdef"

    /// Runs the body with the path of a file with this text.
    private func withFile(_ text: String, mode: mode_t = 0o600, _ body: (String) throws -> Void) throws {
        let path = "/tmp/martlet-secret-\(UInt64.random(in: 0...UInt64.max))"
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL, mode)
        try #require(descriptor >= 0)
        fchmod(descriptor, mode)
        Terminal.write(text, to: descriptor)
        close(descriptor)
        defer { unlink(path) }
        try body(path)
    }

    private func refusal(_ environment: [String: String]) -> String? {
        #expect(throws: Failure.self) { try Settings(environment: environment) }?.sentence
    }

    @Test("what the file holds is the value, but for one newline at its end")
    func value() throws {
        try withFile("\(key)\n\n") { (path) throws in
            let settings = try Settings(environment: ["MARTLET_TOKEN_SECRET_FILE": path])
            #expect(settings.tokenSecret == key + "\n")
            #expect(settings.warnings == [])
            let given = Settings.Given(name: "MARTLET_TOKEN_SECRET_FILE", shown: "(33 bytes)", origin: path)
            #expect(settings.given["MARTLET_TOKEN_SECRET"] == given)
        }
        try withFile("redis://u:hunter2@h") { (path) throws in
            #expect(try Settings(environment: ["MARTLET_REDIS_URL_FILE": path]).redisURL == "redis://u:hunter2@h")
        }
    }

    @Test("a secret and its file are not both set in one place; of two places the stronger wins")
    func both() throws {
        try withFile(key) { (path) throws in
            #expect(
                refusal(["MARTLET_TOKEN_SECRET": key, "MARTLET_TOKEN_SECRET_FILE": path])
                    == "MARTLET_TOKEN_SECRET and MARTLET_TOKEN_SECRET_FILE are both set: take one of them away")
            var file = ConfigurationFile(name: "m.json")
            file.settings["MARTLET_TOKEN_SECRET_FILE"] = ConfigurationFile.Value(text: path, line: 1)
            let other = String(key.reversed())
            let environment = ["MARTLET_TOKEN_SECRET": other]
            #expect(try Settings(Sources(environment: environment, file: file)).tokenSecret == other)
            #expect(try Settings(Sources(file: file)).tokenSecret == key)
            let url = ["MARTLET_REDIS_URL_FILE": path]
            #expect(
                refusal(url)?.hasPrefix("MARTLET_REDIS_URL_FILE: what stands in \(path): ") == true)
            let flags = ["MARTLET_REDIS_URL": "redis://h"]
            #expect(try Settings(environment: url, flags: flags).redisURL == "redis://h")
        }
    }

    @Test("T28: a file that is not there, empty, too short or no text is refused without telling what it holds")
    func refused() throws {
        let name = "MARTLET_TOKEN_SECRET_FILE"
        #expect(refusal([name: "/nowhere"]) == "\(name): /nowhere cannot be read: No such file or directory")
        for (text, reason) in [
            ("", "cannot be read: it is empty"), ("\n", "cannot be read: it is empty"),
        ] {
            try withFile(text) { (path) throws in #expect(refusal([name: path]) == "\(name): \(path) \(reason)") }
        }
        try withFile("hunter2\n") { (path) throws in
            #expect(
                refusal([name: path]) == "\(name): what stands in \(path) is of 7 bytes, but must be at least 32 bytes")
        }
    }

    @Test("T28: a file that everybody may read is warned of")
    func openFile() throws {
        try withFile(key, mode: 0o644) { (path) throws in
            let settings = try Settings(environment: ["MARTLET_TOKEN_SECRET_FILE": path])
            #expect(
                settings.warnings
                    == ["every user of this machine may read \(path), which holds MARTLET_TOKEN_SECRET: chmod 600"])
        }
        try withFile(#"{"token_secret": "\#(key)"}"#, mode: 0o644) { (path) throws in
            #expect(try Settings(environment: ["MARTLET_CONFIG": path]).warnings.count == 1)
        }
        try withFile(#"{"port": 1}"#, mode: 0o644) { (path) throws in
            #expect(try Settings(environment: ["MARTLET_CONFIG": path]).warnings == [])
        }
    }
}
