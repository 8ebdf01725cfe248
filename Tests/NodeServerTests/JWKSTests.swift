import Logging
import NIOCore
import Synchronization
import Testing
import TokenAuth

@testable import NodeServer

/// The schedule in a box, so that expectations can call what changes it.
private final class Running {
    private var schedule: JWKSSchedule

    init(now: NIODeadline) { schedule = JWKSSchedule(now: now) }

    var nextFetch: NIODeadline { schedule.nextFetch }
    var hasKeys: Bool { schedule.hasKeys }
    func begin(now: NIODeadline) -> Bool { schedule.begin(now: now) }
    func succeeded(maximumAge: Int64?, now: NIODeadline) { schedule.succeeded(maximumAge: maximumAge, now: now) }
    func failed(now: NIODeadline) { schedule.failed(now: now) }

    func missing(_ keyID: String?, now: NIODeadline) -> JWKSSchedule.MissAction {
        schedule.missing(keyID, now: now)
    }
}

@Suite("When token keys are fetched")
struct JWKSScheduleTests {
    private let start = NIODeadline.uptimeNanoseconds(1_000_000_000_000)

    private func loaded(maximumAge: Int64? = nil) -> Running {
        let schedule = Running(now: start)
        #expect(schedule.begin(now: start))
        schedule.succeeded(maximumAge: maximumAge, now: start)
        return schedule
    }

    @Test("before the first answer every token that no key fits may come again")
    func cold() {
        let schedule = Running(now: start)
        #expect(schedule.missing("a", now: start) == .comeAgain(milliseconds: 1000, wakesUp: false))
        #expect(schedule.begin(now: start))
        #expect(!schedule.begin(now: start))
        schedule.failed(now: start)
        #expect(schedule.missing(nil, now: start) == .comeAgain(milliseconds: 1000, wakesUp: false))
        #expect(schedule.nextFetch == start + .seconds(2))
        for _ in 0..<20 {
            #expect(schedule.begin(now: schedule.nextFetch))
            schedule.failed(now: start)
        }
        #expect(schedule.nextFetch == start + .seconds(30))
    }

    @Test("an answer is kept for its max-age within a minute and an hour, else for five minutes")
    func age() {
        #expect(loaded().nextFetch == start + .seconds(300))
        #expect(loaded(maximumAge: 90).nextFetch == start + .seconds(90))
        #expect(loaded(maximumAge: 0).nextFetch == start + .seconds(60))
        #expect(loaded(maximumAge: -5).nextFetch == start + .seconds(60))
        #expect(loaded(maximumAge: .max).nextFetch == start + .seconds(3600))
    }

    @Test("T4: a flood of unknown names brings one fetch, ten seconds after the last")
    func flood() {
        let schedule = loaded()
        var wakes = 0
        for index in 0..<100_000 {
            guard case .comeAgain(_, let wakesUp) = schedule.missing("k\(index)", now: start + .seconds(1)) else {
                Issue.record("refused")
                return
            }
            wakes += wakesUp ? 1 : 0
        }
        #expect(wakes == 1)
        #expect(schedule.nextFetch == start + .seconds(10))
        #expect(!schedule.begin(now: start + .seconds(9)))
        #expect(schedule.begin(now: start + .seconds(10)))
    }

    @Test("a name is unknown for good once a fetch that began after it was seen did not bring it")
    func absent() {
        let schedule = loaded()
        #expect(schedule.missing("new", now: start + .seconds(4)) == .comeAgain(milliseconds: 7000, wakesUp: true))
        #expect(schedule.begin(now: start + .seconds(10)))
        // Seen while the fetch runs: perhaps too late for this one.
        #expect(schedule.missing("late", now: start + .seconds(11)) == .comeAgain(milliseconds: 10_000, wakesUp: false))
        schedule.succeeded(maximumAge: nil, now: start + .seconds(11))
        #expect(schedule.missing("new", now: start + .seconds(11)) == .refuse)
        #expect(schedule.nextFetch == start + .seconds(20))
        // Ten seconds later it may have been published.
        #expect(schedule.missing("new", now: start + .seconds(20)) != .refuse)
        #expect(schedule.missing(nil, now: start + .seconds(20)) == .refuse)
    }

    @Test("T4: a failed fetch says nothing of a name, and what is known goes on")
    func outage() {
        let schedule = loaded()
        #expect(schedule.missing("new", now: start + .seconds(10)) == .comeAgain(milliseconds: 1000, wakesUp: true))
        #expect(schedule.begin(now: start + .seconds(10)))
        schedule.failed(now: start + .seconds(15))
        #expect(schedule.hasKeys)
        #expect(schedule.missing("new", now: start + .seconds(15)) != .refuse)
        #expect(schedule.nextFetch <= start + .seconds(20))
    }

    @Test(
        "T4: a name that an answer did not have is refused by that answer alone, not again by fetches that fail behind it"
    )
    func absentInAnOutage() {
        let schedule = loaded()
        _ = schedule.missing("new", now: start + .seconds(10))
        #expect(schedule.begin(now: start + .seconds(10)))
        schedule.succeeded(maximumAge: nil, now: start + .seconds(11))
        #expect(schedule.missing("new", now: start + .seconds(19)) == .refuse)
        // The issuer has it now, but does not answer.
        #expect(schedule.missing("new", now: start + .seconds(20)) == .comeAgain(milliseconds: 1000, wakesUp: true))
        var now = start + .seconds(20)
        for _ in 0..<5 {
            #expect(schedule.begin(now: now))
            #expect(schedule.missing("new", now: now + .seconds(1)) != .refuse)
            schedule.failed(now: now + .seconds(5))
            #expect(schedule.missing("new", now: now + .seconds(6)) != .refuse)
            now = max(schedule.nextFetch, now + .seconds(6))
        }
        #expect(schedule.begin(now: now))
        schedule.succeeded(maximumAge: nil, now: now)
        #expect(schedule.missing("new", now: now + .seconds(9)) == .refuse, "a fresh answer says so again")
    }
}

/// What was logged: level and message.
private final class Lines: Sendable {
    private let lines = Mutex<[String]>([])

    func take() -> [String] {
        lines.withLock { lines in
            defer { lines = [] }
            return lines
        }
    }

    var logger: Logger {
        Logger(label: "test") { [self] _ in Handler(lines: self) }
    }

    private struct Handler: LogHandler {
        let lines: Lines
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.notice
        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            lines.lines.withLock { $0.append("\(event.level): \(event.message)") }
        }
    }
}

@Suite("What a JWKS address answers")
struct JWKSAnswerTests {
    private func answer(_ json: String) throws -> JWKSFetch.Answer {
        JWKSFetch.Answer(keys: try TokenKeys(parsing: Array(json.utf8), from: .network), maximumAge: nil)
    }

    @Test("T4: a set without a key that can be used takes the old keys away and says so, once; an outage keeps them")
    func empty() throws {
        let key = try TokenKey.generate(.es256, id: "one")
        let set = try #require(key.publicJWKS)
        let ring = TokenKeyRing([])
        let source = try JWKSSource(try JWKSAddress("http://127.0.0.1/keys"), authorities: nil, for: ring)
        let verifier = TokenVerifier(keys: ring)
        let token = try TokenMinter(key: key).mint(subject: "alice", expiresAt: 2_000_000_000)
        let lines = Lines()
        let isTaken = { (try? verifier.verify(token, nowSeconds: 0)) != nil }
        let shows = { (line: String) in String(decoding: source.metrics, as: UTF8.self).contains("\n\(line)\n") }

        source.took(try answer(set), lines.logger)
        #expect(isTaken() && lines.take() == ["notice: token keys fetched"])
        source.failed(TokenKeyError("is no JWK Set"), lines.logger)
        #expect(isTaken() && lines.take() == ["warning: token keys cannot be fetched: those known go on"])
        #expect(shows("martlet_jwks_keys 1") && shows("martlet_jwks_failures_total 1"))
        let loud = [
            "error: the address of token keys publishes no key that can be used: tokens that need one are refused"
        ]
        for json in [#"{"keys":[]}"#, #"{"keys":[{"kty":"EC","crv":"P-384","x":"AA","y":"AA"}]}"#] {
            source.took(try answer(set), lines.logger)
            _ = lines.take()
            source.took(try answer(json), lines.logger)
            #expect(!isTaken() && source.hasKeys && lines.take() == loud)
            source.took(try answer(json), lines.logger)
            #expect(lines.take() == [])
            #expect(shows("martlet_jwks_keys 0") && shows("martlet_jwks_failures_total 1"))
        }
        source.took(try answer(set), lines.logger)
        #expect(isTaken() && lines.take() == ["notice: token keys fetched"])

        let cold = try JWKSSource(try JWKSAddress("http://127.0.0.1/keys"), authorities: nil, for: TokenKeyRing([]))
        cold.took(try answer(#"{"keys":[]}"#), lines.logger)
        #expect(cold.hasKeys && lines.take() == loud, "the first answer is as loud")
    }
}

@Suite("JWKS addresses")
struct JWKSAddressTests {
    @Test("T4: https anywhere, http on this machine alone")
    func schemes() throws {
        let address = try JWKSAddress("https://id.example/keys?tenant=7")
        #expect(address.isSecure && address.host == "id.example" && address.port == 443)
        #expect(address.target == "/keys?tenant=7" && "\(address)" == "https://id.example/keys")
        #expect(try JWKSAddress("http://127.0.0.1:8099").target == "/")
        #expect(try JWKSAddress("http://[::1]:8099/k").host == "::1")
        #expect(try JWKSAddress("http://localhost/k").port == 80)
        #expect(try JWKSAddress("https://id.example:8443?x").target == "/?x")
    }

    @Test(
        "anything else is refused",
        arguments: [
            "", "id.example/keys", "ftp://id.example/", "http://id.example/keys", "http://10.0.0.1/keys",
            "http://127.0.0.1.example/k", "http://127.evil/k", "http://localhost.example/", "https://", "https:///k",
            "https://user@id.example/", "https://id.example:0/", "https://id.example:65536/", "https://id.example:/",
            "https://id.example/k#f", "https://id.example/a b", "https://id.exa\u{0}mple/",
            "https://id.example/\r\nX: y",
            "http://127.0.0.1@id.example/", "http://::ffff:10.0.0.1/", "http://[::ffff:10.0.0.1]/", "https://::1/",
            "https://id.example:8443:443/", "https://[id.example]/", "https://[::1/",
        ])
    func refused(url: String) {
        #expect(throws: JWKSAddress.Refusal.self) { try JWKSAddress(url) }
    }
}
