import ChatCore
import NIOCore
import WireProtocol

/// The members that one shard has in one room, and what the room got in this tick. Confined to the shard's loop.
///
/// Members stand in a dense array, so that a fan-out walks memory in order; who leaves is replaced by the last one.
final class ShardRoom {
    struct Member {
        let session: Session
        var echo: Bool
    }

    /// A tick of a large room on its way: to those who were members when it was flushed.
    private struct Flush {
        let tick: TickBuffer<SessionID>
        let members: ContiguousArray<Member>
    }

    let name: RoomName
    let handle: RoomHandle
    var isDirty = false
    private var members: ContiguousArray<Member> = []
    private var indices: [SessionID: Int] = [:]
    private var tick = TickBuffer<SessionID>()
    /// Ticks that are still being sent, in order; a later one waits for the earlier.
    private var backlog: [Flush] = []

    init(name: RoomName, handle: RoomHandle) {
        self.name = name
        self.handle = handle
    }

    var isEmpty: Bool { members.isEmpty }

    func contains(_ id: SessionID) -> Bool { indices[id] != nil }

    func insert(_ session: Session, echo: Bool) {
        if let index = indices[session.id] {
            members[index].echo = echo
            return
        }
        indices[session.id] = members.count
        members.append(Member(session: session, echo: echo))
    }

    func remove(_ session: Session) {
        guard let index = indices.removeValue(forKey: session.id) else { return }
        let last = members.removeLast()
        guard index < members.count else { return }
        members[index] = last
        indices[last.session.id] = index
    }

    func append(_ entry: DeliveryBatch.Entry, in bytes: UnsafeRawBufferPointer) {
        if let origin = entry.origin, indices[origin] != nil {
            tick.append(bytes[entry.frame], kind: entry.kind, origin: origin, own: bytes[entry.own])
        } else {
            tick.append(bytes[entry.frame], kind: entry.kind)
        }
    }

    /// Sends the tick to all who are members now. Returns how many deliveries that makes.
    func flush(on eventLoop: any EventLoop) -> Int {
        let deliveries = tick.frames * members.count
        if members.count <= Shard.chunk, backlog.isEmpty {
            // A copy only if a member leaves or comes while it is walked.
            Self.send(tick, to: members[...])
        } else {
            backlog.append(Flush(tick: tick, members: members))
            if backlog.count == 1 { sendChunk(from: 0, on: eventLoop) }
        }
        tick.removeAll()
        return deliveries
    }

    private func sendChunk(from start: Int, on eventLoop: any EventLoop) {
        guard let flush = backlog.first else { return }
        let end = min(start + Shard.chunk, flush.members.count)
        let isLast = end == flush.members.count
        let chunk = flush.members[start..<end].filter { $0.session.handles[name] == handle }
        Self.send(flush.tick, to: chunk[...])
        if isLast { backlog.removeFirst() }
        guard !backlog.isEmpty else { return }
        eventLoop.assumeIsolated().execute { self.sendChunk(from: isLast ? 0 : end, on: eventLoop) }
    }

    private static func send(_ tick: TickBuffer<SessionID>, to members: some Collection<Member>) {
        let hasOrigins = tick.hasOrigins
        tick.bytes.withUnsafeBytes { bytes in
            for member in members {
                if hasOrigins, let own = tick.assembly(for: member.session.id, echo: member.echo) {
                    member.session.sendFrames(own)
                } else {
                    member.session.sendFrames(bytes)
                }
            }
        }
    }
}
