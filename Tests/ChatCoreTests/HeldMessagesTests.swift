import ChatCore
import Testing
import WireProtocol

@Suite("G1: what a client sends before its turn")
struct HeldMessagesTests {
    private var held = HeldMessages()
    private var bounds = HeldMessages.Bounds(count: 4, bytes: 1000)
    private var state: SessionState

    init() throws {
        state = SessionState(roomLimit: 10)
        _ = state.authenticate(as: try UserName(validating: "alice"), status: nil)
        _ = state.opened()
    }

    private mutating func offer(_ text: String) throws -> HeldMessages.OfferAction {
        try Array(text.utf8).withUnsafeBytes { bytes in
            let message = try ClientMessage(decoding: bytes)
            return held.offer(message, bytes, size: bytes.count, to: state, within: bounds)
        }
    }

    private mutating func release() -> [String] {
        held.release().map { String(decoding: $0.bytes, as: UTF8.self) }
    }

    private static let join = #"{"type":"join","room":"a"}"#
    private static let joinBoth = #"{"type":"join","rooms":[{"room":"b"},{"room":"a"}]}"#
    private static let leave = #"{"type":"leave","room":"a"}"#
    private static let speak = #"{"type":"message","room":"a","text":"hi"}"#
    private static let elsewhere = #"{"type":"message","room":"b","text":"hi"}"#

    @Test("join, leave, join in one burst is done in this order: the second join waits behind the leave")
    mutating func leaveAndJoin() throws {
        #expect(try offer(Self.join) == .perform)
        _ = state.join(try RoomName(validating: "a"), Rights())
        #expect(try offer(Self.leave) == .held)
        #expect(try offer(Self.joinBoth) == .held)
        #expect(try offer(Self.elsewhere) == .held)
        _ = try state.joined(RoomName(validating: "a"))
        #expect(try offer(Self.speak) == .held)
        #expect(release() == [Self.leave, Self.joinBoth, Self.elsewhere, Self.speak])
        #expect(held.isEmpty)
        #expect(try offer(Self.leave) == .perform)
    }

    @Test("other rooms do not wait; a second join of the room does")
    mutating func others() throws {
        _ = state.join(try RoomName(validating: "a"), Rights())
        #expect(try offer(Self.elsewhere) == .perform)
        #expect(try offer(Self.speak) == .held)
        #expect(try offer(Self.elsewhere) == .perform)
        #expect(try offer(Self.join) == .held)
    }

    @Test("what is too much is refused, never done out of order")
    mutating func bounded() throws {
        _ = state.join(try RoomName(validating: "a"), Rights())
        for _ in 0..<4 { #expect(try offer(Self.speak) == .held) }
        #expect(try offer(Self.leave) == .refuse)
        held = HeldMessages()
        bounds = HeldMessages.Bounds(count: 4, bytes: 50)
        #expect(try offer(Self.speak) == .held)
        #expect(try offer(Self.speak) == .refuse)
    }
}
