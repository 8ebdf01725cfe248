import Testing
import WireProtocol

@testable import NodeServer

private let ms: UInt64 = 1_000_000

@Suite("A large room rests after a tick")
struct FanOutRestTests {
    @Test("as long as all parts of its sending took, pauses between them not counted")
    func asLong() {
        var rest = FanOutRest()
        #expect(rest.until == 0)
        rest.sent(from: 100 * ms, to: 101 * ms, isWhole: false)
        #expect(rest.until == 0)
        rest.sent(from: 105 * ms, to: 107 * ms, isWhole: true)
        #expect(rest.until == 110 * ms)
        rest.sent(from: 110 * ms, to: 111 * ms, isWhole: true)
        #expect(rest.until == 112 * ms)
    }

    @Test("not at all when that was short, and never for longer than 8 ms")
    func bounded() {
        var rest = FanOutRest()
        rest.sent(from: 10 * ms, to: 10 * ms + 400_000, isWhole: true)
        #expect(rest.until == 0)
        rest.sent(from: 0, to: 50 * ms, isWhole: true)
        #expect(rest.until == 58 * ms)
    }
}

@Suite("Rooms that are to be sent to")
struct DirtyRoomsTests {
    private func room(_ number: Int, members: Int, chunk: Int = 1000) throws -> ShardRoom<Receiver> {
        let room = ShardRoom<Receiver>(
            name: try RoomName(validating: "r\(number)"), handle: RoomHandle(number: number), chunk: chunk,
            maximumTick: 1000, pool: TickPool())
        for number in 0..<members { room.insert(Receiver(number), echo: false, seesPresence: true) }
        return room
    }

    @Test("are due in their order, once, a large one that rests at its time, a small one always")
    func resting() throws {
        let (large, small) = (try room(1, members: 100), try room(2, members: 99))
        var dirty = DirtyRooms<Receiver>()
        for room in [large, small] {
            room.say("1")
            room.say("1")
            dirty.insert(room)
            dirty.insert(room)
        }
        #expect(dirty.takeDue(now: 1).map(\.handle) == [large.handle, small.handle])
        #expect(dirty.isEmpty && dirty.next == nil)
        for room in [large, small] {
            room.flush()
            room.noteSent(from: 10 * ms, to: 13 * ms)
            room.say("2")
            dirty.insert(room)
        }
        #expect(dirty.takeDue(now: 14 * ms).map(\.handle) == [small.handle])
        #expect(dirty.next == 16 * ms)
        #expect(dirty.takeDue(now: 16 * ms - 1).isEmpty)
        #expect(dirty.takeDue(now: 16 * ms).map(\.handle) == [large.handle])
        #expect(dirty.isEmpty)
        // One message in a tick: there is nothing to gather.
        large.flush()
        large.noteSent(from: 16 * ms, to: 20 * ms)
        #expect(large.rest.until == 16 * ms)
    }

    @Test("a room whose tick is on its way comes back behind that one, and rests for all of its parts")
    func underWay() throws {
        let room = try room(1, members: 120, chunk: 100)
        var dirty = DirtyRooms<Receiver>()
        room.say("1")
        room.say("1")
        room.flush()
        room.noteSent(from: 0, to: 1 * ms)
        room.say("2")
        dirty.insert(room)
        #expect(dirty.takeDue(now: 2 * ms).isEmpty && dirty.isEmpty)
        room.sendChunk()
        room.noteSent(from: 3 * ms, to: 4 * ms)
        #expect(!room.isSending && room.hasGathered)
        dirty.insert(room)
        #expect(dirty.takeDue(now: 5 * ms).isEmpty && dirty.next == 6 * ms)
        #expect(dirty.takeDue(now: 6 * ms).count == 1)
    }
}
