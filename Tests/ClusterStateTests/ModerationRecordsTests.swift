import ChatCore
import ClusterState
import Testing
import WireProtocol

@Suite("An order in Redis")
struct ModerationRecordsTests {
    private func parse(_ text: String) -> ModerationChange? {
        var text = text
        return text.withUTF8 { ModerationChange(parsing: UnsafeRawBufferPointer($0)) }
    }

    @Test(
        "is a field that names it and nothing else",
        arguments: [
            "ban user * alice", "ban user general a b  c", "mute user general %}{*", "ban session * sessionsession1",
            "revoke token * https://issuer/7 8", "revoke user * bob", "ban address * 10.0.0.0/8",
            "kick address * 2001:db8::1", "kick user general bob",
            "revoke session * sessionsession1", "revoke address * 10.0.0.0/8", "kick token * j",
        ])
    func fields(field: String) {
        #expect(ModerationOrder.Key(field: field)?.field == field)
    }

    @Test(
        "of another form is of another version",
        arguments: [
            "", "version", "ban user *", "ban user * ", "fly user * bob", "ban planet * mars", "ban user bad!room bob",
            "ban address * 10.0.0.300", "ban session * short",
            "ban token general j", "ban token * \u{7}", "ban user * a\u{85}b",
        ])
    func otherFields(field: String) {
        #expect(ModerationOrder.Key(field: field) == nil)
    }

    @Test("is told with the version before it, its terms, and a reason of any text")
    func changes() throws {
        let put = try #require(parse("order 0-0 5-1\nban user * bob\n5 0\nroot\nspam\nand more\n"))
        #expect(put.previous == "0-0" && put.next == "5-1" && put.key.field == "ban user * bob")
        #expect(put.terms == .init(reason: "spam\nand more\n", by: "root", since: 5, until: nil))
        let lifted = try #require(parse("order 5-1 6-2\nban user * bob\n"))
        #expect(lifted.terms == nil)
        #expect(parse("order 5-1 6-2\nmute user x bob\n5 9\nroot\n")?.terms?.until == 9)
    }

    @Test(
        "is no news to who read its version or a later one, and is news wherever that is not certain",
        arguments: [
            ("5-1", false), ("5-2", false), ("6-1", false), ("5-0", true), ("4-9", true), ("0-0", true), ("", true),
            ("x-1", true), ("5", true),
        ])
    func news(known: String, isNews: Bool) throws {
        #expect(try #require(parse("order 4-0 5-1\nban user * bob\n")).isNewer(than: known) == isNews)
    }

    @Test(
        "that is told in another form is of another version",
        arguments: [
            "order ", "order 1-1\nban user * b\n", "order 1-1 2-2\nban user * b", "order 1-1 2-2\nban user b\n",
            "order 1-1 2-2 3\nban user * b\n", "order 1-1 2-2\nban user * b\nx", "order 1-1 2-2\nban user * b\n5\nr\n",
            "drain node-a.1", "order  2-2\nban user * b\n",
        ])
    func otherChanges(text: String) { #expect(parse(text) == nil) }

    @Test("G7, T17: of any bytes ends in a change or in nothing")
    func noise() {
        var generator = SystemRandomNumberGenerator()
        let letters = Array("order 0123456789-\nban user * address/.:session".utf8) + [0xFF, 0x80, 0x00]
        for _ in 0..<20_000 {
            let bytes =
                Array("order ".utf8)
                + (0..<Int.random(in: 0...60, using: &generator)).map { _ in
                    letters[Int.random(in: 0..<letters.count, using: &generator)]
                }
            bytes.withUnsafeBytes { _ = ModerationChange(parsing: $0) }
        }
    }
}
