import ChatCore
import Testing

@Suite("G1: what a room got in one tick")
struct TickBufferTests {
    private func tick() -> TickBuffer<String> {
        var tick = TickBuffer<String>()
        tick.append("1".utf8, kind: .message)
        tick.append("2".utf8, kind: .message, origin: "alice", own: "(ack2)".utf8)
        tick.append("3".utf8, kind: .message, origin: "bob", own: "(ack3)".utf8)
        tick.append("4".utf8, kind: .message, origin: "alice", own: "(ack4)".utf8)
        tick.append("t".utf8, kind: .typing, origin: "alice", own: "".utf8)
        tick.append("5".utf8, kind: .message)
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

    @Test("who came when the first frames stood in it already gets the rest, with the own answers of the rest")
    func fromTheMiddle() {
        #expect(text(tick().assembly(for: "alice", echo: false, from: 2)) == "3(ack4)5")
        #expect(text(tick().assembly(for: "alice", echo: true, from: 6)) == "")
    }

    @Test("G6: who is slow gets it without typing and presence, and all of the rest")
    func lean() {
        var tick = tick()
        #expect(tick.hasEphemeral && !tick.hasPresence)
        tick.append("p".utf8, kind: .presence)
        tick.append("g".utf8, kind: .notice)
        #expect(tick.hasPresence)
        #expect(text(tick.lean(for: "carol", echo: false)) == "12345g")
        #expect(text(tick.lean(for: "carol", echo: false, from: 4)) == "5g")
        #expect(text(tick.lean(for: "alice", echo: false)) == "1(ack2)3(ack4)5g")
        #expect(text(tick.lean(for: "alice", echo: true)) == "1(ack2)23(ack4)45g")
    }

    @Test("the next tick begins empty")
    func reuse() {
        var tick = tick()
        tick.removeAll()
        tick.append("6".utf8, kind: .message)
        #expect(text(tick.bytes) == "6")
        #expect(tick.assembly(for: "alice", echo: true) == nil)
        #expect(!tick.hasEphemeral && !tick.hasOrigins && tick.frames == 1)
    }
}
