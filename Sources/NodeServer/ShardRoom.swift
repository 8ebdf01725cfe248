import ChatCore
import WireProtocol

/// One member of a room as the fan-out sees it.
protocol FrameReceiver: AnyObject {
    var id: SessionID { get }
    /// Too much waits for it: what is ephemeral is better left out (G6).
    var isBehind: Bool { get }
    func sendFrames(_ bytes: UnsafeRawBufferPointer)
    /// A presence event of the room was left out.
    func missedPresence(of room: RoomName)
}

/// The members that one shard has in one room, all of whom take the same format, and what they are still to get. Confined to the shard's loop.
///
/// Members stand in a dense array, so that a fan-out walks memory in order; who leaves is replaced by the last one.
///
/// What the room gets is one stream of bytes: first the tick that is being sent, in chunks when there are many members,
/// behind it the next tick, which gathers meanwhile. Each member has its position in the stream, and is sent what lies
/// behind it: who came late gets nothing older, and whoever was caught up in between gets nothing twice.
final class ShardRoom<Receiver: FrameReceiver> {
    struct Member {
        let receiver: Receiver
        var echo: Bool
        /// It gets the presence events.
        var seesPresence: Bool
        var position: Int
    }

    let name: RoomName
    let handle: RoomHandle
    /// The shard's own marks.
    var isDirty = false
    var isContinued = false
    private(set) var rest = FanOutRest()
    /// Frames given to members, without the answers that stand in place of their own; the shard takes them from here
    /// into its figures.
    var deliveries = 0
    /// Of messages that every member has been sent; the shard takes them from here.
    var delivered: [DeliveryMark] = []
    private let chunk: Int
    private let maximumTick: Int
    private let pool: TickPool
    private var members: ContiguousArray<Member> = []
    private var indices: [SessionID: Int] = [:]
    /// What gathers, `nil` while that is nothing, and where in the stream it begins.
    private var tick: TickBuffer?
    private var tickStart = 0
    private var tickMarks: [DeliveryMark] = []
    /// Frames of the tick that the member who caused them does not get.
    private var tickAnswers = 0
    /// What is being sent, to the members below `unsent`.
    private var sending: TickBuffer?
    private var sendingStart = 0
    private var sendingMarks: [DeliveryMark] = []
    private var unsent = 0
    /// The last tick had one frame.
    private var wasAlone = false

    /// - Parameters:
    ///   - chunk: members that are sent to without a pause, so that the loop is never held for long.
    ///   - maximumTick: bytes of a tick from which on it is sent at once, whatever that takes.
    init(name: RoomName, handle: RoomHandle, chunk: Int, maximumTick: Int, pool: TickPool) {
        self.name = name
        self.handle = handle
        self.chunk = chunk
        self.maximumTick = maximumTick
        self.pool = pool
    }

    var isEmpty: Bool { members.isEmpty }
    /// A tick is on its way: ``sendChunk()`` is to be called again.
    var isSending: Bool { sending != nil }
    /// Something waits for the next tick.
    var hasGathered: Bool { tick != nil }

    func contains(_ id: SessionID) -> Bool { indices[id] != nil }

    private var end: Int { tickStart + (tick?.bytes.count ?? 0) }

    /// Gets what is appended from now on.
    func insert(_ receiver: Receiver, echo: Bool, seesPresence: Bool) {
        if let index = indices[receiver.id] {
            members[index].echo = echo
            members[index].seesPresence = seesPresence
            return
        }
        indices[receiver.id] = members.count
        members.append(Member(receiver: receiver, echo: echo, seesPresence: seesPresence, position: end))
    }

    /// What was appended before goes to it by what held then.
    func show(presence isShown: Bool, to receiver: Receiver) {
        guard let index = indices[receiver.id] else { return }
        catchUp(receiver)
        members[index].seesPresence = isShown
    }

    /// Gets nothing any more, also of what was appended before.
    func remove(_ receiver: Receiver) {
        guard let index = indices.removeValue(forKey: receiver.id) else { return }
        let last = members.removeLast()
        // Members are sent to from the last to the first: whoever moves was sent to, or still will be.
        unsent = min(unsent, members.count)
        guard index < members.count else { return }
        members[index] = last
        indices[last.receiver.id] = index
    }

    /// - Parameter frame: that of the entry in this room's format.
    func append(_ entry: DeliveryBatch.Entry, frame: Range<Int>, in bytes: UnsafeRawBufferPointer) {
        if tick == nil { tick = pool.take() }
        if let mark = entry.mark { tickMarks.append(mark) }
        let text = UnsafeRawBufferPointer(rebasing: bytes[frame])
        if let origin = entry.origin, let index = indices[origin] {
            if entry.kind != .message || !members[index].echo { tickAnswers += 1 }
            let own = UnsafeRawBufferPointer(rebasing: bytes[entry.own])
            tick?.append(text, kind: entry.kind, origin: origin, own: own)
        } else {
            tick?.append(text, kind: entry.kind)
        }
        if end - tickStart >= maximumTick { sendEverything() }
    }

    /// Begins to send what has gathered, unless an earlier tick is on its way.
    func flush() {
        guard sending == nil, let next = tick else { return }
        // Who caused some may have left.
        deliveries += max(0, next.frames * members.count - tickAnswers)
        tickAnswers = 0
        sendingStart = tickStart
        tickStart += next.bytes.count
        unsent = members.count
        wasAlone = next.frames == 1
        sending = next
        tick = nil
        if !tickMarks.isEmpty { swap(&tickMarks, &sendingMarks) }
        sendChunk()
    }

    /// Sends to the next members; ``isSending`` ends with the last one.
    func sendChunk() {
        let first = max(0, unsent - chunk)
        if let sending { send(sending, at: sendingStart, to: first..<unsent) }
        unsent = first
        guard unsent == 0, let sent = sending else { return }
        sending = nil
        pool.put(sent)
        guard !sendingMarks.isEmpty else { return }
        delivered += sendingMarks
        sendingMarks.removeAll(keepingCapacity: true)
    }

    /// When the last call of ``flush()`` or ``sendChunk()`` began and ended.
    func noteSent(from start: UInt64, to end: UInt64) {
        guard members.count >= FanOutRest.fewestMembers, !wasAlone else { return }
        rest.sent(from: start, to: end, isWhole: !isSending)
    }

    /// Sends all that one member is still to get, because something is to follow that must not overtake it.
    func catchUp(_ receiver: Receiver) {
        guard let index = indices[receiver.id], members[index].position < end else { return }
        if let sending, members[index].position < tickStart {
            send(sending, at: sendingStart, to: index..<index + 1)
        }
        if let tick { send(tick, at: tickStart, to: index..<index + 1) }
    }

    private func sendEverything() {
        while isSending { sendChunk() }
        flush()
        while isSending { sendChunk() }
    }

    private func send(_ tick: TickBuffer, at start: Int, to range: Range<Int>) {
        let hasOrigins = tick.hasOrigins
        let hasEphemeral = tick.hasEphemeral
        let hasPresence = tick.hasPresence
        let end = start + tick.bytes.count
        let name = name
        /// What those get who see no presence and wrote nothing.
        var discreet: [UInt8]?
        tick.bytes.withUnsafeBytes { bytes in
            members.withUnsafeMutableBufferPointer { members in
                for index in range.reversed() {
                    let from = members[index].position - start
                    guard from < bytes.count else { continue }
                    let (receiver, echo) = (members[index].receiver, members[index].echo)
                    members[index].position = end
                    if hasEphemeral, receiver.isBehind {
                        tick.lean(for: receiver.id, echo: echo, from: from).withUnsafeBytes { receiver.sendFrames($0) }
                        if hasPresence, members[index].seesPresence { receiver.missedPresence(of: name) }
                    } else if hasPresence, !members[index].seesPresence {
                        let isCommon = from == 0 && !tick.isOrigin(receiver.id)
                        let text =
                            (isCommon ? discreet : nil)
                            ?? tick.lean(for: receiver.id, echo: echo, from: from, withTyping: true)
                        if isCommon { discreet = text }
                        if !text.isEmpty { text.withUnsafeBytes { receiver.sendFrames($0) } }
                    } else if hasOrigins, let own = tick.assembly(for: receiver.id, echo: echo, from: from) {
                        own.withUnsafeBytes { receiver.sendFrames($0) }
                    } else {
                        receiver.sendFrames(from == 0 ? bytes : UnsafeRawBufferPointer(rebasing: bytes[from...]))
                    }
                }
            }
        }
    }
}

/// Tick buffers of one shard that no room needs at the moment. Confined to its loop.
final class TickPool {
    private static let maximumCount = 64
    private static let maximumBytes = 64 * 1024
    private var buffers: [TickBuffer] = []

    /// An empty one.
    func take() -> TickBuffer {
        buffers.popLast() ?? TickBuffer()
    }

    func put(_ buffer: consuming TickBuffer) {
        guard buffers.count < Self.maximumCount, buffer.capacity <= Self.maximumBytes else { return }
        buffer.removeAll()
        buffers.append(buffer)
    }
}
