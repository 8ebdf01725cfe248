import ChatCore
import Testing
import WireProtocol

@Suite("Orders of operators")
struct ModerationTests {
    private static let now: Int64 = 1_000_000
    private let now = Self.now

    private func order(
        _ kind: ModerationOrder.Kind, _ target: ModerationOrder.Target, in room: String? = nil, since: Int64 = 500_000,
        until: Int64? = nil
    ) throws -> ModerationOrder {
        let room = try room.map { try RoomName(validating: $0) }
        return ModerationOrder(
            try #require(ModerationOrder.Key(kind, target, in: room)),
            .init(reason: "", by: "op", since: since, until: until))
    }

    private func user(_ name: String) throws -> UserName { try UserName(validating: name) }
    private func room(_ name: String) throws -> RoomName { try RoomName(validating: name) }
    private func address(_ text: String) throws -> ClientAddress { try #require(ClientAddress(text)) }
    private func range(_ text: String) throws -> AddressRange { try #require(AddressRange(text)) }

    private func subject(
        _ name: String? = "bob", session: String = "sessionsession1", token: ModerationSubject.Token? = nil,
        from: String = "192.0.2.7"
    ) throws -> ModerationSubject {
        ModerationSubject(
            user: try name.map { try user($0) }, session: SessionID(session), token: token, address: try address(from))
    }

    @Test("a ban meets its user, session, token or addresses, and nobody else")
    func bans() throws {
        let session = try #require(SessionID("sessionsession1"))
        let cases: [(ModerationOrder.Target, hit: ModerationSubject, miss: ModerationSubject)] = [
            (.user(try user("bob")), try subject(), try subject("bo")),
            (.session(session), try subject("x"), try subject(session: "sessionsession2")),
            (
                .token("j-1"), try subject("x", token: .init(id: "j-1", earliestIssue: nil)),
                try subject(token: .init(id: "j-2", earliestIssue: nil))
            ),
            (.address(try range("192.0.2.0/29")), try subject(nil), try subject(from: "192.0.2.8")),
            (.address(try range("192.0.2.7")), try subject(nil), try subject(from: "192.0.2.6")),
            (
                .address(try range("2001:db8::/32")), try subject(nil, from: "2001:db8:ffff::1"),
                try subject(from: "2001:db9::1")
            ),
        ]
        for (target, hit, miss) in cases {
            let table = ModerationTable([try order(.ban, target)])
            #expect(table.exclusion(of: hit, now)?.key.target == target)
            #expect(table.exclusion(of: miss, now) == nil, "\(target)")
            #expect(table.mute(of: hit, in: try room("r"), now) == nil)
        }
    }

    @Test("an order ends by itself, and until then is asked in vain for nothing else")
    func ends() throws {
        var table = ModerationTable([
            try order(.ban, .user(user("bob")), until: now + 10), try order(.ban, .user(user("eve"))),
        ])
        #expect(table.exclusion(of: try subject(), now + 9) != nil)
        #expect(table.exclusion(of: try subject(), now + 10) == nil)
        #expect(table.expire(now + 9).isEmpty)
        #expect(table.expire(now + 10).map(\.target) == [.user(try user("bob"))])
        #expect(table.orders.count == 1)
        #expect(table.exclusion(of: try subject("eve"), .max) != nil)
    }

    @Test("many orders end each at its time, as it was said last, whenever one looks")
    func endsOfMany() throws {
        let hour: Int64 = 3_600_000
        var table = ModerationTable()
        for number in 0..<200 {
            table.put(try order(.ban, .user(user("u\(number)")), until: now + Int64(number) * hour / 100))
        }
        table.put(try order(.ban, .user(user("u3")), until: now + 5 * hour))
        table.put(try order(.ban, .user(user("u4"))))
        table.put(try order(.ban, .user(user("u199")), until: now + 1))
        table.remove(try order(.ban, .user(user("u5"))).key)
        let first = Set(table.expire(now + hour).map(\.target))
        let others = Set([3, 4, 5])
        let due = (0...100).filter { !others.contains($0) } + [199]
        #expect(first == Set(try due.map { .user(try user("u\($0)")) }))
        #expect(table.expire(now + hour).isEmpty)
        #expect(table.expire(now + 3 * hour).count == 98)
        #expect(table.expire(now + 5 * hour - 1).isEmpty)
        #expect(table.expire(now + 5 * hour).map(\.target) == [.user(try user("u3"))])
        #expect(table.expire(.max).isEmpty && table.orders.count == 1, "u4 stays")
    }

    @Test("the ban from one room is one from that room alone, and so is a mute")
    func rooms() throws {
        let table = ModerationTable([
            try order(.ban, .user(user("bob")), in: "a"), try order(.mute, .user(user("bob")), in: "b"),
        ])
        #expect(table.exclusion(of: try subject(), now) == nil)
        #expect(table.ban(of: try user("bob"), from: try room("a"), now) != nil)
        #expect(table.ban(of: try user("bob"), from: try room("b"), now) == nil)
        #expect(table.mute(of: try subject(), in: try room("b"), now) != nil)
        #expect(table.mute(of: try subject(), in: try room("a"), now) == nil)
        #expect(table.mute(of: try subject("eve"), in: try room("b"), now) == nil)
    }

    @Test("a revocation of a user meets tokens up to its second and those that do not say when, and no later one")
    func revocations() throws {
        let since: Int64 = 500_250
        let table = ModerationTable([try order(.revoke, .user(user("bob")), since: since)])
        func isRevoked(_ issue: Int64?) throws -> Bool {
            table.exclusion(of: try subject(token: .init(id: nil, earliestIssue: issue)), now) != nil
        }
        #expect(try isRevoked(499_000))
        #expect(try isRevoked(500_000), "issued in the second of the order")
        #expect(try isRevoked(nil))
        #expect(try !isRevoked(501_000))
        #expect(table.exclusion(of: try subject(), now) == nil, "without a token there is nothing to revoke")
    }

    @Test(
        "T8: a token whose issuer's clock may have been ahead was there before the order, open or shown again; a later one was not"
    )
    func revokedAhead() throws {
        let (since, leeway): (Int64, Int64) = (500_999, 30_000)
        let tables = [
            ModerationTable([try order(.revoke, .user(user("bob")), since: since)]),
            ModerationTable([try order(.revoke, .address(range("192.0.2.0/24")), since: since)]),
        ]
        for table in tables {
            func isRevoked(_ issuedAt: Int64) throws -> Bool {
                let grant = Grant(issuedAt: issuedAt, expiresAt: 9_000_000, leeway: leeway, now: since)
                let subject = try subject(token: .init(grant))
                let met = table.exclusion(of: subject, now) != nil
                #expect(met == (table.expulsion(of: subject, now) != nil))
                return met
            }
            // `iat` has whole seconds: until 530 a node took it in the second of the order.
            #expect(try isRevoked(500_000) && isRevoked(520_000) && isRevoked(530_000))
            #expect(try !isRevoked(531_000) && !isRevoked(600_000))
        }
    }

    @Test("a revocation of addresses meets tokens up to its second that are shown from there, of whichever range")
    func revokedAddresses() throws {
        let table = ModerationTable([
            try order(.revoke, .address(range("192.0.2.0/24")), since: 400_000),
            try order(.revoke, .address(range("192.0.2.7")), since: 600_000),
        ])
        func isRevoked(_ issue: Int64?, from address: String) throws -> Bool {
            table.exclusion(of: try subject(token: .init(id: "j", earliestIssue: issue), from: address), now) != nil
        }
        #expect(try isRevoked(600_000, from: "192.0.2.7") && isRevoked(nil, from: "192.0.2.8"))
        #expect(try !isRevoked(601_000, from: "192.0.2.7") && !isRevoked(500_000, from: "192.0.2.8"))
        #expect(try !isRevoked(300_000, from: "192.0.3.7"))
        #expect(table.exclusion(of: try subject(), now) == nil, "without a token there is nothing to revoke")
    }

    @Test("a revoked session is met with and without a token, and its user's others are not")
    func revokedSession() throws {
        let table = ModerationTable([try order(.revoke, .session(try #require(SessionID("sessionsession1"))))])
        #expect(table.exclusion(of: try subject(), now) != nil)
        #expect(table.exclusion(of: try subject(token: .init(id: "j", earliestIssue: now)), now) != nil)
        #expect(table.exclusion(of: try subject(session: "sessionsession2"), now) == nil)
    }

    @Test("the kick of a session stands, that of a token or an address meets only who is there")
    func kicks() throws {
        let session = try #require(SessionID("sessionsession1"))
        let table = ModerationTable([
            try order(.kick, .session(session)), try order(.kick, .address(range("10.0.0.0/8"))),
            try order(.kick, .token("j")),
        ])
        #expect(table.exclusion(of: try subject(), now) != nil)
        let there = try subject(session: "sessionsession2", from: "10.1.2.3")
        #expect(table.exclusion(of: there, now) == nil)
        #expect(table.expulsion(of: there, now) != nil)
        let shown = try subject(session: "sessionsession2", token: .init(id: "j", earliestIssue: nil))
        #expect(table.exclusion(of: shown, now) == nil)
        #expect(table.expulsion(of: shown, now) != nil)
    }

    @Test("what is put again changes, what is removed is gone")
    func changes() throws {
        var table = ModerationTable()
        #expect(table.isEmpty && !table.hasMutes)
        table.put(try order(.mute, .address(range("10.0.0.0/8")), until: now - 1))
        #expect(table.mute(of: try subject(from: "10.1.1.1"), in: try room("r"), now) == nil)
        table.put(try order(.mute, .address(range("10.0.0.0/8"))))
        #expect(table.mute(of: try subject(from: "10.1.1.1"), in: try room("r"), now) != nil)
        table.remove(try order(.mute, .address(range("10.0.0.0/8"))).key)
        #expect(table.isEmpty && !table.hasMutes)
        #expect(table.mute(of: try subject(from: "10.1.1.1"), in: try room("r"), now) == nil)
    }

    @Test("there is no order that could mean nobody")
    func keys() throws {
        let (session, any) = (try #require(SessionID("sessionsession1")), try room("r"))
        #expect(ModerationOrder.Key(.ban, .session(session), in: any) == nil)
        #expect(ModerationOrder.Key(.revoke, .user(try user("bob")), in: any) == nil)
        #expect(ModerationOrder.Key(.kick, .token("j"), in: any) == nil)
    }

    @Test(
        "an address or a range has one form however it is written",
        arguments: [
            ("10.1.2.3/8", "10.0.0.0/8"), ("10.1.2.3", "10.1.2.3"), ("10.1.2.3/32", "10.1.2.3"),
            ("::ffff:10.1.2.3", "10.1.2.3"), ("::ffff:10.0.0.0/104", "10.0.0.0/8"), ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:DB8::1/32", "2001:db8::/32"), ("::/0", "::/0"), ("::1", "::1"),
        ])
    func ranges(text: String, form: String) throws {
        #expect(try range(text).description == form)
        #expect(try range(form) == range(text))
    }

    @Test(
        "what is no range is none",
        arguments: [
            "", "10.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "::/129", "fe80::1%eth0", "x", "::ffff:1.2.3.4/8",
        ])
    func noRanges(text: String) { #expect(AddressRange(text) == nil) }

    @Test("all of IPv6 is not all of IPv4, nor the other way")
    func families() throws {
        let table = ModerationTable([try order(.ban, .address(range("::/0")))])
        #expect(table.exclusion(of: try subject(from: "2001:db8::1"), now) != nil)
        #expect(table.exclusion(of: try subject(from: "192.0.2.1"), now) == nil)
        let other = ModerationTable([try order(.ban, .address(range("0.0.0.0/0")))])
        #expect(other.exclusion(of: try subject(from: "2001:db8::1"), now) == nil)
        #expect(other.exclusion(of: try subject(from: "192.0.2.1"), now) != nil)
    }
}
