import TLSClient
import Testing

@testable import RedisClient

@Suite("Redis URLs")
struct RedisConfigurationTests {
    @Test(
        "the parts of a URL",
        arguments: [
            ("redis://localhost", "redis://localhost:6379/0"),
            ("redis://localhost/", "redis://localhost:6379/0"),
            ("REDIS://10.0.0.1:7000/5", "redis://10.0.0.1:7000/5"),
            ("rediss://bob:secret@h:7000/5", "rediss://bob:***@h:7000/5"), ("RedisS://h", "rediss://h:6379/0"),
            ("redis://[::1]:7000", "redis://[::1]:7000/0"),
            ("redis://[fe80::1]", "redis://[fe80::1]:6379/0"),
            ("redis://:secret@h", "redis://:***@h:6379/0"),
            ("redis://bob:secret@h:1/65535", "redis://bob:***@h:1/65535"),
            ("redis://@h", "redis://h:6379/0"),
            ("unix:///run/redis.sock", "unix:///run/redis.sock?db=0"),
            ("unix:///run/a%20b.sock?db=3", "unix:///run/a b.sock?db=3"),
            ("unix://bob:secret@/run/redis.sock", "unix://bob:***@/run/redis.sock?db=0"),
        ]
    )
    func parts(_ url: String, _ description: String) throws {
        let configuration = try RedisConfiguration(url: url)
        #expect(configuration.description == description)
    }

    @Test("settings of TLS are for rediss://: redis:// with them is refused, a socket of this machine needs none")
    func settingsOfTLS() throws {
        let tls = TLSClientOptions(authorities: "/ca.pem")
        #expect(try RedisConfiguration(url: "rediss://h", tls: tls).tls == tls)
        #expect(try RedisConfiguration(url: "rediss://h").tls == TLSClientOptions())
        #expect(try RedisConfiguration(url: "redis://h").tls == nil)
        #expect(try RedisConfiguration(url: "unix:///run/redis.sock", tls: tls).tls == nil)
        let error = #expect(throws: RedisConfigurationError.self) { try RedisConfiguration(url: "redis://h", tls: tls) }
        #expect(error?.reason == .plainWithTLS)
    }

    @Test("user and password are percent-decoded; an @ in a password need not be encoded")
    func login() throws {
        let encoded = try RedisConfiguration(url: "redis://b%C3%B6b:p%40s%3As%2F%25@h")
        #expect(encoded.user == "böb")
        #expect(encoded.password == "p@s:s/%")
        let plain = try RedisConfiguration(url: "redis://:p@ss:word@h")
        #expect(plain.user == nil)
        #expect(plain.password == "p@ss:word")
    }

    @Test(
        "a bad URL is refused with the reason",
        arguments: [
            ("", .noScheme), ("localhost", .noScheme), ("localhost:6379", .noScheme), ("redis:localhost", .noScheme),
            ("http://h", .scheme("http")), ("redis://", .host), ("redis:///0", .host),
            ("redis://:6379", .host), ("redis://[::1", .host), ("redis://[::1]x", .host), ("redis://a:b:c", .host),
            ("redis://h:", .port), ("redis://h:0", .port), ("redis://h:65536", .port), ("redis://h:+1", .port),
            ("redis://h:6379x", .port), ("redis://h/x", .database), ("redis://h/-1", .database),
            ("redis://h/1/2", .database),
            ("redis://h/65536", .database), ("redis://h?db=1", .parameter), ("redis://h#1", .fragment),
            ("redis://bob@h", .loginWithoutPassword), ("redis://bob:@h", .loginWithoutPassword),
            ("redis://:%zz@h", .percentEncoding), ("redis://:%ff@h", .percentEncoding),
            ("redis://:%2@h", .percentEncoding),
            ("redis://a b", .controlCharacter), ("redis://h\n", .controlCharacter), ("unix://run/redis.sock", .path),
            ("unix://", .path), ("unix:///", .path), ("unix:///a?db=x", .database), ("unix:///a?x=1", .parameter),
            ("unix:///" + String(repeating: "x", count: 107), .path), ("redis://u:pa/ss@h", .unencodedLogin),
            ("redis://u:pa?ss@h", .unencodedLogin), ("redis://u:pa#ss@h", .unencodedLogin),
        ] as [(String, RedisConfigurationError.Reason)]
    )
    func refused(_ url: String, _ reason: RedisConfigurationError.Reason) throws {
        let error = #expect(throws: RedisConfigurationError.self) { try RedisConfiguration(url: url) }
        #expect(error?.reason == reason)
        #expect(error?.description.contains("\n") == false)
    }

    @Test(
        "no description shows a password",
        arguments: [
            "redis://bob:hunter2@h:x", "rediss://bob:hunter2@h", "redis://bob:hunter2@h/x", "redis://:hunter2@h?x",
            "redis://bob:hunter2/@h",
            "redis://bob:hunter2", "redis://bob:hunter2?@h", "redis://:hunter2%@h", "unix://:hunter2@/p?x",
            "redis://hunter2@h",
            "redis://h/hunter2", "redis://h?hunter2", "bob:hunter2@h", "redis://bob:hunter2@h", "unix://:hunter2@/p",
        ]
    )
    func passwordIsNeverShown(_ url: String) {
        do {
            let configuration = try RedisConfiguration(url: url)
            var dumped = ""
            dump(configuration, to: &dumped)
            for text in ["\(configuration)", String(reflecting: configuration), dumped] {
                #expect(!text.contains("hunter2"))
            }
        } catch {
            #expect(!"\(error)".contains("hunter2"))
        }
    }

    @Test(
        "a prefix that would move hash tags is refused",
        arguments: ["", "a{b", "a}b", "a b", "ü", String(repeating: "p", count: 65)]
    )
    func prefix(_ prefix: String) {
        let error = #expect(throws: RedisConfigurationError.self) {
            try RedisConfiguration(url: "redis://h", keyPrefix: prefix)
        }
        #expect(error?.reason == .keyPrefix)
    }
}
