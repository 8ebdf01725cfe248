import ChatCore
import NIOCore
import Testing
import WireProtocol

@testable import NodeServer

final class Receiver: FrameReceiver {
    let id: SessionID
    var isBehind = false
    var missed = 0
    var sends: [String] = []
    var text: String { sends.joined() }

    init(_ number: Int) {
        var random = FastRandom(seed: UInt64(number) + 1)
        id = SessionID(using: &random)
    }

    func sendFrames(_ bytes: UnsafeRawBufferPointer) { sends.append(String(decoding: bytes, as: UTF8.self)) }
    func missedPresence(of room: RoomName) { missed += 1 }
}

extension ShardRoom<Receiver> {
    /// Says something in it, to all but its origin, who gets `own`.
    func say(
        _ text: String, _ kind: FrameKind = .message, from origin: Receiver? = nil, own: String = "",
        mark: DeliveryMark? = nil
    ) {
        let bytes = Array((text + own).utf8)
        let frame = 0..<text.utf8.count
        bytes.withUnsafeBytes {
            append(
                .init(
                    room: handle, frames: InlineArray(repeating: frame), origin: origin?.id,
                    own: frame.upperBound..<bytes.count, kind: kind, mark: mark),
                frame: frame, in: $0)
        }
    }
}

@Suite("G1, G6: the fan-out of one room")
struct ShardRoomTests {

    private let room: ShardRoom<Receiver>
    private let receivers: [Receiver]

    /// Ten may come; chunks have three members, and a tick of 20 bytes is sent at once.
    init() throws {
        room = ShardRoom(
            name: try RoomName(validating: "r"), handle: RoomHandle(number: 1), chunk: 3, maximumTick: 20,
            pool: TickPool())
        receivers = (0..<10).map { Receiver($0) }
    }

    private func enter(_ numbers: Range<Int>) {
        for number in numbers { room.insert(receivers[number], echo: false, seesPresence: true) }
    }

    private func finish() {
        while room.isSending { room.sendChunk() }
    }

    @Test("a message that is measured was delivered when the last member was sent it, not before")
    func measured() {
        enter(0..<7)
        let marks = (1...3).map { DeliveryMark(cameAt: UInt64($0), standsFor: 1) }
        room.say("1", mark: marks[0])
        room.say("2")
        room.flush()
        room.say("3", mark: marks[1])
        room.say("4", mark: marks[2])
        #expect(room.isSending && room.delivered.isEmpty)
        finish()
        #expect(room.delivered == [marks[0]])
        room.flush()
        finish()
        #expect(room.delivered == marks)
    }

    @Test("a small room is one send for each member, with the own ack in place of the own message")
    func small() {
        enter(0..<3)
        room.say("1")
        room.say("2", from: receivers[1], own: "a")
        room.flush()
        #expect(!room.isSending)
        #expect(receivers[0].sends == ["12"] && receivers[1].sends == ["1a"] && receivers[2].sends == ["12"])
        #expect(room.deliveries == 5, "the ack is no delivery")
        room.flush()
        #expect(receivers[0].sends.count == 1)
    }

    @Test(
        "the figure of deliveries counts what others said: an own message with echo alone, and nothing for who has left"
    )
    func counted() {
        enter(0..<1)
        room.insert(receivers[1], echo: true, seesPresence: true)
        room.say("1", from: receivers[0], own: "a")
        room.say("2", from: receivers[1], own: "b")
        room.say("3", .typing, from: receivers[1])
        room.flush()
        #expect(receivers[0].text == "a23" && receivers[1].text == "1b2")
        #expect(room.deliveries == 4)
        room.deliveries = 0
        room.say("4", from: receivers[0], own: "c")
        room.remove(receivers[0])
        room.remove(receivers[1])
        room.flush()
        #expect(room.deliveries == 0)
    }

    @Test("a large room goes in chunks; what comes meanwhile is one next tick, whatever it came in")
    func coalescing() {
        enter(0..<8)
        room.say("1")
        room.flush()
        #expect(receivers.filter { !$0.sends.isEmpty }.count == 3)
        for text in ["2", "3", "4"] {
            room.say(text)
            room.flush()
        }
        finish()
        #expect(room.hasGathered)
        room.flush()
        finish()
        #expect(receivers[..<8].allSatisfy { $0.sends == ["1", "234"] })
    }

    @Test("whatever comes and goes meanwhile, each gets what was said while it was there, once and in order")
    func comingAndGoing() {
        enter(0..<7)
        room.say("1")
        room.flush()
        // Behind the chunk that was sent: one that has it, and one that has not.
        room.remove(receivers[6])
        room.remove(receivers[0])
        enter(7..<9)
        room.say("2")
        enter(0..<1)
        enter(9..<10)
        room.say("3")
        room.flush()
        finish()
        room.flush()
        finish()
        #expect(receivers[6].text == "1")
        #expect(receivers[0].text == "3" && receivers[9].text == "3")
        #expect(receivers[7].text == "23" && receivers[8].text == "23")
        #expect(receivers[1..<6].allSatisfy { $0.text == "123" })
    }

    @Test("members who leave in any order under way take nothing from those who stay", arguments: 0..<50)
    func random(seed: Int) {
        var random = FastRandom(seed: UInt64(seed))
        enter(0..<10)
        var present = Set(0..<10)
        var expected = [String](repeating: "", count: 10)
        for step in 0..<40 {
            let number = Int.random(in: 0..<10, using: &random)
            switch Int.random(in: 0..<5, using: &random) {
            case 0 where present.contains(number):
                room.catchUp(receivers[number])
                room.remove(receivers[number])
                present.remove(number)
                #expect(receivers[number].text == expected[number])
            case 1 where !present.contains(number):
                enter(number..<number + 1)
                present.insert(number)
            case 2: room.catchUp(receivers[number])
            case 3:
                room.flush()
                room.sendChunk()
            default:
                let text = String(UnicodeScalar(UInt8(65 + step % 26)))
                room.say(text)
                for number in present { expected[number] += text }
            }
        }
        repeat {
            room.flush()
            finish()
        } while room.hasGathered
        #expect(receivers.map(\.text) == expected)
    }

    @Test("what is sent to one member next does not overtake what it is still to get")
    func catchUp() {
        enter(0..<5)
        room.say("1")
        room.flush()
        room.say("2", from: receivers[0], own: "a")
        let late = receivers[0]
        #expect(late.sends.isEmpty)
        room.catchUp(late)
        #expect(late.text == "1a")
        late.sends.append("(joined)")
        room.say("3")
        finish()
        room.flush()
        finish()
        #expect(late.text == "1a(joined)3")
        #expect(receivers[4].text == "123")
        room.catchUp(late)
        #expect(late.text == "1a(joined)3")
    }

    @Test("a tick that grows over its bound is sent at once")
    func bounded() {
        enter(0..<5)
        room.say("1")
        room.flush()
        room.say(String(repeating: "x", count: 30))
        #expect(!room.isSending)
        #expect(receivers[..<5].allSatisfy { $0.text.count == 31 })
    }

    @Test("G6: who is slow gets messages without typing and presence, and is marked; the others get all")
    func slow() {
        enter(0..<3)
        receivers[1].isBehind = true
        room.say("m")
        room.say("t", .typing, from: receivers[0])
        room.flush()
        #expect(receivers.prefix(3).map(\.text) == ["m", "m", "mt"])
        #expect(receivers[1].missed == 0)
        room.say("p", .presence)
        room.say("g", .notice)
        room.flush()
        #expect(receivers.prefix(3).map(\.text) == ["mpg", "mg", "mtpg"])
        #expect(receivers.prefix(3).map(\.missed) == [0, 1, 0])
        receivers[1].isBehind = false
        room.say("p", .presence)
        room.flush()
        #expect(receivers[1].text == "mgp")
    }

    @Test("who is slow and gets nothing but ephemeral frames is sent nothing")
    func nothingLeft() {
        enter(0..<1)
        receivers[0].isBehind = true
        room.say("t", .typing)
        room.flush()
        #expect(receivers[0].text.isEmpty)
    }

    @Test("who may not see who is there gets all but presence, and goes by what held when an event came")
    func discreet() {
        enter(0..<2)
        for number in 2..<4 { room.insert(receivers[number], echo: false, seesPresence: false) }
        room.say("1")
        room.say("p", .presence)
        room.say("t", .typing)
        room.say("2", from: receivers[3], own: "a")
        room.flush()
        finish()
        #expect(receivers.prefix(4).map(\.text) == ["1pt2", "1pt2", "1t2", "1ta"])
        room.say("q", .presence)
        room.show(presence: false, to: receivers[0])
        room.show(presence: true, to: receivers[2])
        room.say("r", .presence)
        receivers[3].isBehind = true
        room.flush()
        finish()
        #expect(receivers.prefix(4).map(\.text) == ["1pt2q", "1pt2qr", "1t2r", "1ta"])
        #expect(receivers[3].missed == 0)
    }
}
