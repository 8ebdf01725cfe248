import ChatCore
import Testing
import WireProtocol

extension SessionID {
    fileprivate static let alice = SessionID()
    fileprivate static let bob = SessionID()
    fileprivate static let carol = SessionID()
}

@Suite("G1: what a room got in one tick")
struct TickBufferTests {
    private func tick() -> TickBuffer {
        var tick = TickBuffer()
        append("1", .message, to: &tick)
        append("2", .message, from: .alice, own: "(ack2)", to: &tick)
        append("3", .message, from: .bob, own: "(ack3)", to: &tick)
        append("4", .message, from: .alice, own: "(ack4)", to: &tick)
        append("t", .typing, from: .alice, own: "", to: &tick)
        append("5", .message, to: &tick)
        return tick
    }

    private func append(
        _ text: String, _ kind: FrameKind, from origin: SessionID? = nil, own: String = "", to tick: inout TickBuffer
    ) {
        Array(text.utf8).withUnsafeBytes { frame in
            guard let origin else { return tick.append(frame, kind: kind) }
            Array(own.utf8).withUnsafeBytes { tick.append(frame, kind: kind, origin: origin, own: $0) }
        }
    }

    private func text(_ bytes: [UInt8]?) -> String? { bytes.map { String(decoding: $0, as: UTF8.self) } }

    @Test("everybody gets all of it in order")
    func everybody() {
        #expect(text(tick().bytes) == "1234t5")
        #expect(tick().frames == 6)
        #expect(tick().assembly(for: .carol, echo: true) == nil)
    }

    @Test("an ack stands where the own message would, and own typing is left out")
    func origin() {
        #expect(text(tick().assembly(for: .alice, echo: false)) == "1(ack2)3(ack4)5")
        #expect(text(tick().assembly(for: .bob, echo: false)) == "12(ack3)4t5")
    }

    @Test("with echo the own message follows its ack")
    func echo() {
        #expect(text(tick().assembly(for: .alice, echo: true)) == "1(ack2)23(ack4)45")
    }

    @Test("who came when the first frames stood in it already gets the rest, with the own answers of the rest")
    func fromTheMiddle() {
        #expect(text(tick().assembly(for: .alice, echo: false, from: 2)) == "3(ack4)5")
        #expect(text(tick().assembly(for: .alice, echo: true, from: 6)) == "")
    }

    @Test("G6: who is slow gets it without typing and presence, and all of the rest")
    func lean() {
        var tick = tick()
        #expect(tick.hasEphemeral && !tick.hasPresence)
        append("p", .presence, to: &tick)
        append("g", .notice, to: &tick)
        #expect(tick.hasPresence)
        #expect(text(tick.lean(for: .carol, echo: false)) == "12345g")
        #expect(text(tick.lean(for: .carol, echo: false, from: 4)) == "5g")
        #expect(text(tick.lean(for: .alice, echo: false)) == "1(ack2)3(ack4)5g")
        #expect(text(tick.lean(for: .alice, echo: true)) == "1(ack2)23(ack4)45g")
    }

    @Test("the next tick begins empty")
    func reuse() {
        var tick = tick()
        tick.removeAll()
        append("6", .message, to: &tick)
        #expect(text(tick.bytes) == "6")
        #expect(tick.assembly(for: .alice, echo: true) == nil)
        #expect(!tick.hasEphemeral && !tick.hasOrigins && tick.frames == 1)
    }
}
