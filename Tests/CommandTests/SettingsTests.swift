import Affinity
import Logging
import NIOCore
import RouterServer
import Testing
import WebSocketTransport

@testable import martlet

@Suite("Settings")
struct SettingsTests {
    private func failure(_ environment: [String: String], flags: [String: String?] = [:]) -> Failure? {
        do throws(Failure) {
            _ = try Settings(environment: environment, flags: flags)
            return nil
        } catch {
            return error
        }
    }

    @Test("an empty environment gives the defaults")
    func defaults() throws {
        let settings = try Settings(environment: ["PATH": "/bin", "MARTLET_PORT": ""])
        #expect(settings == Settings.defaults)
        #expect(settings.redisURL == "redis://127.0.0.1:6379")
        #expect(settings.auth == .token)
        #expect(settings.port == nil)
    }

    @Test("a flag wins over the environment, the environment over the default")
    func precedence() throws {
        let environment = ["MARTLET_PORT": "9000", "MARTLET_HOST": "::1", "MARTLET_LEASE_SECONDS": "0.5"]
        #expect(failure(environment)?.sentence == "MARTLET_LEASE_SECONDS is “0.5”, but must be seconds from 1 to 3600")
        let settings = try Settings(
            environment: ["MARTLET_PORT": "9000", "MARTLET_HOST": "::1", "MARTLET_LEASE_SECONDS": "1.5"],
            flags: ["MARTLET_PORT": "9001", "MARTLET_HOST": nil])
        #expect(settings.port == 9001)
        #expect(settings.host == "::1")
        #expect(settings.lease == .milliseconds(1500))
    }

    @Test("an unknown key is an error that names the nearest known one")
    func unknownKey() {
        let error = failure(["MARTLET_REDIS_ULR": "redis://h"])
        #expect(error?.code == .usage)
        #expect(
            error?.sentence
                == "the environment has MARTLET_REDIS_ULR, which no setting is called; the nearest is MARTLET_REDIS_URL"
        )
    }

    @Test(
        "a bad value is refused in one sentence with key, value and what is allowed",
        arguments: [
            ("MARTLET_PORT", "65536", "a whole number from 0 to 65535"),
            ("MARTLET_PORT", "+80", "a whole number from 0 to 65535"),
            ("MARTLET_PORT", "8o80", "a whole number from 0 to 65535"),
            ("MARTLET_LIMIT_MESSAGES_PER_SECOND", "-1", "a whole number from 0 to 1000000"),
            ("MARTLET_LIMIT_MESSAGES_PER_SECOND", "99999999999999999999", "a whole number from 0 to 1000000"),
            ("MARTLET_DRAIN_SECONDS", "1e3", "seconds from 0 to 3600"),
            ("MARTLET_DRAIN_SECONDS", ".", "seconds from 0 to 3600"),
            ("MARTLET_DRAIN_SECONDS", "nan", "seconds from 0 to 3600"),
            ("MARTLET_AUTH", "None", "one of none, token"),
            ("MARTLET_LOG_LEVEL", "loud", "one of trace, debug, info, notice, warning, error, critical"),
            ("MARTLET_REDIS_PREFIX", "a{b}", "1 to 64 characters of A-Z a-z 0-9 _ . : -"),
            ("MARTLET_NODE_NAME", "a b", "1 to 64 characters of A-Z a-z 0-9 _ . -"),
            ("MARTLET_ADVERTISE", "host", "host:port, with [ ] around an IPv6 address"),
            ("MARTLET_ADVERTISE", "host:0", "host:port, with [ ] around an IPv6 address"),
            ("MARTLET_TRUSTED_PROXIES", "10.0.0.0/33", "a comma-separated list of addresses or CIDR blocks"),
            ("MARTLET_TRUSTED_PROXIES", "::1,10.0.0.0/0008", "a comma-separated list of addresses or CIDR blocks"),
            ("MARTLET_TRUSTED_PROXIES", "::ffff:10.0.0.0/8", "a comma-separated list of addresses or CIDR blocks"),
            ("MARTLET_TRUSTED_PROXIES", ",", "a comma-separated list of addresses or CIDR blocks"),
            ("MARTLET_TRUSTED_PROXIES", " , ", "a comma-separated list of addresses or CIDR blocks"),
            (
                "MARTLET_NODE_SOURCE", ",",
                "a comma-separated list of addresses or CIDR blocks, with 256 addresses at most"
            ),
            (
                "MARTLET_ORIGINS", ",",
                "a comma-separated list of origins (https://app.example.com), https://*.example.com, self and *"
            ),
            (
                "MARTLET_AFFINITY", ",",
                "a comma-separated list of key, user, room, cookie, header:NAME and, as the last, address"
            ),
            ("MARTLET_TOKEN_KEYS", ",", "a comma-separated list of files"),
            ("MARTLET_TLS_CERT", ",", "a comma-separated list of paths of files"),
        ])
    func badValue(key: String, value: String, allowed: String) {
        #expect(failure([key: value]) == Failure(.usage, "\(key) is “\(value)”, but must be \(allowed)"))
    }

    @Test("one message may take at most a quarter of what may wait for a client")
    func messageFitsOutbound() throws {
        #expect(
            failure(["MARTLET_LIMIT_MESSAGE_BYTES": "262145"])
                == Failure(
                    .usage,
                    "MARTLET_LIMIT_MESSAGE_BYTES is 262145, but must be at most a quarter of"
                        + " MARTLET_LIMIT_OUTBOUND_BYTES, which is 1048576"))
        #expect(failure(["MARTLET_LIMIT_OUTBOUND_BYTES": "262143"]) != nil)
        let environment = ["MARTLET_LIMIT_OUTBOUND_BYTES": "65536", "MARTLET_LIMIT_MESSAGE_BYTES": "16384"]
        #expect(try Settings(environment: environment).limitMessageBytes == 16384)
    }

    @Test("a Redis URL that cannot be used is refused with the reason, without its password")
    func redisURL() {
        let error = failure(["MARTLET_REDIS_URL": "redis://u:hunter2@h:99999"])
        #expect(
            error == Failure(.usage, "MARTLET_REDIS_URL: the port in the Redis URL must be a number from 1 to 65535"))
        #expect(failure([:], flags: ["MARTLET_REDIS_URL": "http://h"])?.sentence.hasPrefix("--redis: ") == true)
    }

    @Test("an error about a flag names the flag")
    func badFlag() {
        let error = failure([:], flags: ["MARTLET_PORT": "x"])
        #expect(error?.sentence == "--port is “x”, but must be a whole number from 0 to 65535")
    }

    @Test("T28: an error about a secret does not show it, and control characters are written as escapes")
    func nothingLeaks() {
        #expect(
            failure(["MARTLET_TOKEN_SECRET": "hunter2"])?.sentence
                == "MARTLET_TOKEN_SECRET is of 7 bytes, but must be at least 32 bytes")
        #expect(failure(["MARTLET_HOST": "a\u{1B}[2J"])?.sentence.contains("a\\u{1b}[2J") == true)
    }

    @Test("a router says what of its settings is hardly meant so: no secret, a PROXY protocol that nobody speaks")
    func routerWarnings() throws {
        func warnings(_ environment: [String: String]) throws -> [String] {
            RouterCommand.warnings(try Settings(environment: environment))
        }
        var environment = ["MARTLET_SECRET": "a secret of a router", "MARTLET_PROXY_PROTOCOL": "on"]
        #expect(
            try warnings(environment) == [
                "MARTLET_PROXY_PROTOCOL is on, and does nothing: MARTLET_TRUSTED_PROXIES names no load balancer whose"
                    + " headers count."
            ])
        environment["MARTLET_TRUSTED_PROXIES"] = "10.0.0.7"
        #expect(try warnings(environment) == [])
        #expect(try warnings([:]).map { $0.prefix(14) } == ["MARTLET_SECRET"])
    }

    @Test("an address that does not exist is one plain sentence, without names of the program's inside")
    func unknownAddress() throws {
        #expect(throws: SocketAddressError.UnknownHost.self) {
            do {
                _ = try SocketAddress.makeAddressResolvingHost("a..b", port: 80)
            } catch {
                let sentence = RouterCommand.listenFailure(error, host: "a..b", port: 80).sentence
                let beginning = "the router cannot listen on a..b port 80 ("
                #expect(sentence.hasPrefix(beginning) && sentence.hasSuffix("): choose others with --host and --port"))
                #expect(!sentence.contains("Error"), "\(sentence)")
                throw error
            }
        }
    }

    @Test("lists and addresses are read")
    func lists() throws {
        let settings = try Settings(environment: [
            "MARTLET_TRUSTED_PROXIES": "10.0.0.0/8, ::1", "MARTLET_ADVERTISE": "[::1]:8081",
            "MARTLET_REDIS_URL": "unix:///run/redis.sock?db=2",
        ])
        #expect(settings.trustedProxies == ["10.0.0.0/8", "::1"].compactMap { AddressBlock($0) })
        #expect(settings.advertise == "[::1]:8081")
    }

    @Test("addresses that nodes are dialled from are a list or blocks, of this machine, and few enough to be meant")
    func nodeSources() throws {
        let settings = try Settings(environment: ["MARTLET_NODE_SOURCE": "127.0.0.2, 127.0.1.7/30,::1"])
        #expect(
            settings.nodeSources.map(\.description)
                == ["127.0.0.2", "127.0.1.4", "127.0.1.5", "127.0.1.6", "127.0.1.7", "::1"])
        #expect(try settings.nodeSourceAddresses() != nil)
        #expect(try Settings().nodeSourceAddresses() == nil)
        #expect(try Settings(environment: ["MARTLET_NODE_SOURCE": "10.0.0.0/24"]).nodeSources.count == 256)
        for bad in ["10.0.0.0/23", "::/0", "0.0.0.0/0", "localhost", ","] {
            #expect(failure(["MARTLET_NODE_SOURCE": bad])?.sentence.contains("256 addresses at most") == true, "\(bad)")
        }
        let foreign = try Settings(environment: ["MARTLET_NODE_SOURCE": "127.0.0.2,192.0.2.77"])
        #expect(
            throws: Failure(
                .usage, "MARTLET_NODE_SOURCE has 192.0.2.77, which is not an address of this machine")
        ) { try foreign.nodeSourceAddresses() }
    }

    @Test("what decides on a client's node is read, and refused with what is allowed")
    func balance() throws {
        let settings = try Settings(environment: [
            "MARTLET_BALANCE_FACTOR": "150", "MARTLET_BALANCE_FLOOR": "0", "MARTLET_AFFINITY": "room, header:X-Tenant",
            "MARTLET_NODE_WEIGHT": "1000", "MARTLET_NODE_URL": "wss://node-a.example.com:8443/ws",
        ])
        #expect(settings.balance.bound == LoadBound(percent: 150, floor: 0))
        #expect(settings.balance.affinity.description == "room,header:x-tenant,address")
        #expect(settings.balance.nodeWeight == 1000)
        #expect(Settings().balance.slowStart == .seconds(30))
        #expect(settings.balance.nodeURL == "wss://node-a.example.com:8443/ws")
        #expect(Settings().balance.bound == LoadBound(percent: 125, floor: 250))
        #expect(try Settings(environment: ["MARTLET_BALANCE_FACTOR": "0"]).balance.bound == nil)
        for bad in ["99", "1001", "-1", "1.25"] {
            #expect(
                failure(["MARTLET_BALANCE_FACTOR": bad])?.sentence
                    == "MARTLET_BALANCE_FACTOR is “\(bad)”, but must be 0 or a whole number from 100 to 1000")
        }
        for bad in [
            "http://a/ws", "ws://a", "wss:///ws", "ws://a/ws?x=1", "ws://a/ws#x", "ws://u:p@a/ws", "ws://a:0/ws",
            "ws://a/w s", "a:8081",
        ] {
            #expect(failure(["MARTLET_NODE_URL": bad])?.sentence.contains("without a query") == true, "\(bad)")
        }
        #expect(failure(["MARTLET_AFFINITY": "address,user"])?.sentence.contains("as the last, address") == true)
        #expect(failure(["MARTLET_NODE_WEIGHT": "0"]) != nil)
    }

    @Test("T28: a password in a flag's URL is refused without showing it, as the list of processes would")
    func passwordInFlag() {
        let error = failure([:], flags: ["MARTLET_REDIS_URL": "redis://u:hunter2@h"])
        #expect(
            error
                == Failure(
                    .usage,
                    "--redis has a password, which every user of this machine sees in the list of processes: set"
                        + " MARTLET_REDIS_URL or MARTLET_REDIS_URL_FILE instead"))
        #expect(failure([:], flags: ["MARTLET_REDIS_URL": "redis://h"]) == nil)
    }

    @Test("every default passes its own row, and keys are unique")
    func tableIsSound() {
        #expect(Set(Settings.table.map(\.key)).count == Settings.table.count)
        for row in Settings.table {
            #expect(row.key.hasPrefix("MARTLET_"))
            if row.isSecret {
                #expect(Settings.rows["\(row.key)_FILE"]?.fileOf == row.key, "\(row.key) may come from a file")
            }
            #expect(row.allowed.hasPrefix("a comma-separated list") == (row.form == .list), "\(row.key)")
            #expect((row.defaultText == nil) == (row.unset != nil), "\(row.key) says what it is when not set")
            guard let text = row.defaultText else { continue }
            var settings = Settings.defaults
            #expect(row.apply(&settings, text), "\(row.key)=\(text)")
            #expect(settings == Settings.defaults, "\(row.key)")
        }
    }

    @Test("edit distance counts insertions, deletions, replacements and swaps")
    func editDistance() {
        #expect(EditDistance.between("", "abc") == 3)
        #expect(EditDistance.between("abc", "abc") == 0)
        #expect(EditDistance.between("MARTLET_PROT", "MARTLET_PORT") == 1)
        #expect(EditDistance.between("kitten", "sitting") == 3)
    }
}
