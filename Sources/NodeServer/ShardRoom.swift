import NIOCore
import WebSocketTransport
import WireProtocol

/// The members that one shard has in one room, and what the room got in this tick. Confined to the shard's loop.
///
/// Members stand in a dense array, so that a fan-out walks memory in order; who leaves is replaced by the last one.
/// A tick's frames are one buffer that all members are sent; a member who wrote some of them gets its own assembly,
/// with its acks where its messages stand (G1).
final class ShardRoom {
    struct Member {
        let session: Session
        var echo: Bool
    }

    private struct Piece {
        let frame: Range<Int>
        let origin: SessionID
        let own: Range<Int>
        let isMessage: Bool
    }

    let name: RoomName
    let handle: RoomHandle
    var isDirty = false
    private var members: ContiguousArray<Member> = []
    private var indices: [SessionID: Int] = [:]
    private var buffer: [UInt8] = []
    /// Answers for origins, which are not part of what everybody gets.
    private var ownBytes: [UInt8] = []
    private var pieces: [Piece] = []
    private var frames = 0
    /// Ticks of a large room that are still being sent, in order; a later tick waits for the earlier.
    private var backlog: [Chunks] = []

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
        let start = buffer.count
        buffer.append(contentsOf: bytes[entry.frame])
        frames += 1
        guard let origin = entry.origin, indices[origin] != nil else { return }
        let ownStart = ownBytes.count
        ownBytes.append(contentsOf: bytes[entry.own])
        pieces.append(
            Piece(frame: start..<buffer.count, origin: origin, own: ownStart..<ownBytes.count, isMessage: entry.isMessage))
    }

    /// Sends the tick's buffer to all who are members now. Returns how many deliveries that makes.
    func flush(on eventLoop: any EventLoop) -> Int {
        let deliveries = frames * members.count
        frames = 0
        // A copy only if a member leaves or comes while it is walked.
        let members = self.members
        let pieces = self.pieces
        let origins = Dictionary(grouping: pieces, by: \.origin)
        if members.count <= Shard.chunk, backlog.isEmpty {
            buffer.withUnsafeBytes { bytes in
                for member in members { send(bytes, own: ownBytes, to: member, origins) }
            }
            buffer.removeAll(keepingCapacity: buffer.count < 1 << 16)
        } else {
            backlog.append(Chunks(members: members, bytes: buffer, own: ownBytes, origins: origins))
            if backlog.count == 1 { sendChunk(from: 0, on: eventLoop) }
            buffer = []
        }
        ownBytes.removeAll(keepingCapacity: true)
        self.pieces.removeAll(keepingCapacity: true)
        return deliveries
    }

    private struct Chunks {
        let members: ContiguousArray<Member>
        let bytes: [UInt8]
        let own: [UInt8]
        let origins: [SessionID: [Piece]]
    }

    private func sendChunk(from start: Int, on eventLoop: any EventLoop) {
        guard let chunks = backlog.first else { return }
        let end = min(start + Shard.chunk, chunks.members.count)
        chunks.bytes.withUnsafeBytes { bytes in
            for member in chunks.members[start..<end] where member.session.handles[name] == handle {
                send(bytes, own: chunks.own, to: member, chunks.origins)
            }
        }
        if end == chunks.members.count { backlog.removeFirst() }
        guard !backlog.isEmpty else { return }
        let next = end == chunks.members.count ? 0 : end
        eventLoop.assumeIsolated().execute { self.sendChunk(from: next, on: eventLoop) }
    }

    private func send(
        _ bytes: UnsafeRawBufferPointer, own: [UInt8], to member: Member, _ origins: [SessionID: [Piece]]
    ) {
        if !origins.isEmpty, let pieces = origins[member.session.id] {
            member.session.sendFrames(assemble(pieces, bytes, own, echo: member.echo))
        } else {
            member.session.sendFrames(bytes)
        }
    }

    /// The tick as its origin sees it: others' frames, and for each of its own the answer, with `echo` the message too.
    private func assemble(_ pieces: [Piece], _ bytes: UnsafeRawBufferPointer, _ own: [UInt8], echo: Bool) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(bytes.count)
        var offset = 0
        for piece in pieces {
            result.append(contentsOf: bytes[offset..<piece.frame.lowerBound])
            result.append(contentsOf: own[piece.own])
            if echo, piece.isMessage { result.append(contentsOf: bytes[piece.frame]) }
            offset = piece.frame.upperBound
        }
        result.append(contentsOf: bytes[offset...])
        return result
    }
}
