import ChatCore
import Testing
import WireProtocol

@testable import NodeServer

@Suite("What comes live while a client gets what it missed")
struct DirectReplayTests {
    private func replay(_ budget: DirectReplays.Budget) throws -> DirectReplay {
        let session = SessionID()
        return try DirectReplay(
            room: RoomName(validating: "dm:alice:bob"), user: UserName(validating: "alice"), session: session,
            connection: session, budget: budget)
    }

    private func message(_ seq: Int64, bytes: Int = 1000, ackUntil deadline: UInt64? = nil) -> DirectReplay.Held {
        .message(
            RoomPosition(epoch: "e", seq: seq, tag: "t"), text: Array(repeating: 120, count: bytes),
            publish: deadline.map { .init(id: "\(seq)", deadline: $0) })
    }

    private func seqs(_ replay: DirectReplay) -> [Int64] { replay.held.map(\.held.seqs.to) }

    @Test("G2: past 64 KiB messages are left to the log, acks are kept, each in its place")
    func overflow() throws {
        let replay = try replay(.init(maximumBytes: 1 << 20))
        for seq in 1...61 { replay.hold(message(Int64(seq))) }
        #expect(!replay.hasOverflowed)
        for seq in 62...70 { replay.hold(message(Int64(seq), ackUntil: seq == 65 ? 5 : nil)) }
        replay.hold(message(71, bytes: 1))
        #expect(replay.hasOverflowed)
        #expect(seqs(replay) == Array(1...61) + [65])
        #expect(replay.takeAck(of: 64, in: "e") == nil && replay.takeAck(of: 65, in: "other") == nil)
        #expect(replay.takeAck(of: 65, in: "e")?.count == 1000)
        // The log was read after all of them had come.
        replay.readThrough = replay.lastNumber
        #expect(!replay.hasOverflowed && replay.release { _ in true })
        replay.hold(message(72))
        #expect(seqs(replay) == [72] && !replay.hasOverflowed)
    }

    @Test("G6: all rooms of a session together hold no more than its budget, and give it back")
    func budget() throws {
        let budget = DirectReplays.Budget(maximumBytes: 100_000)
        var rooms = try (0..<10).map { _ in try replay(budget) }
        for seq in 1...50 { for room in rooms { room.hold(message(Int64(seq))) } }
        #expect(budget.bytes <= budget.maximumBytes && budget.bytes > 98_000)
        #expect(rooms.allSatisfy { $0.hasOverflowed })
        #expect(rooms[0].release { $0.held.seqs.to < 5 } == false)
        #expect(budget.bytes <= 96_000 && seqs(rooms[0]).first == 5)
        rooms = []
        #expect(budget.bytes == 0)
    }

    @Test("G5: a publish is handed back at its deadline, once, and its message is left to the log")
    func deadlines() throws {
        let replay = try replay(.init(maximumBytes: 1 << 20))
        for seq in 1...3 { replay.hold(message(Int64(seq), ackUntil: UInt64(seq))) }
        replay.hold(ack: [], of: .init(id: "duplicate", deadline: 2))
        #expect(replay.takeOverdue(now: 0).isEmpty && !replay.hasOverflowed)
        #expect(replay.takeOverdue(now: 2).map(\.id) == ["1", "2", "duplicate"])
        #expect(seqs(replay) == [3] && replay.hasOverflowed && replay.takeAcks().isEmpty)
        #expect(replay.takeOverdue(now: 2).isEmpty)
    }
}
