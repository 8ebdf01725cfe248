import ChatCore
import Testing

@Suite("G1: what a room got in one tick")
struct TickBufferTests {
    private func tick() -> TickBuffer<String> {
        var tick = TickBuffer<String>()
        tick.append("1".utf8)
        tick.append("2".utf8, origin: "alice", own: "(ack2)".utf8, isMessage: true)
        tick.append("3".utf8, origin: "bob", own: "(ack3)".utf8, isMessage: true)
        tick.append("4".utf8, origin: "alice", own: "(ack4)".utf8, isMessage: true)
        tick.append("t".utf8, origin: "alice", own: "".utf8, isMessage: false)
        tick.append("5".utf8)
        return tick
    }

    private func text(_ bytes: [UInt8]?) -> String? { bytes.map { String(decoding: $0, as: UTF8.self) } }

    @Test("everybody gets all of it in order")
    func everybody() {
        #expect(text(tick().bytes) == "1234t5")
        #expect(tick().frames == 6)
        #expect(tick().assembly(for: "carol", echo: true) == nil)
    }

    @Test("an ack stands where the own message would, and own typing is left out")
    func origin() {
        #expect(text(tick().assembly(for: "alice", echo: false)) == "1(ack2)3(ack4)5")
        #expect(text(tick().assembly(for: "bob", echo: false)) == "12(ack3)4t5")
    }

    @Test("with echo the own message follows its ack")
    func echo() {
        #expect(text(tick().assembly(for: "alice", echo: true)) == "1(ack2)23(ack4)45")
    }

    @Test("the next tick begins empty")
    func reuse() {
        var tick = tick()
        tick.removeAll()
        tick.append("6".utf8)
        #expect(text(tick.bytes) == "6")
        #expect(tick.assembly(for: "alice", echo: true) == nil)
    }
}
