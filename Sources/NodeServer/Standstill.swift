import ChatCore
import NIOCore
import WebSocketTransport
import WireProtocol

/// What clients of one shard sent, in the order in which it came, while it is not known what operators ordered as the node
/// stood still. Bounded in messages and bytes.
struct Standstill {
    struct Waiting {
        let session: Session
        let message: ClientMessage
        /// What the ranges of the message are of.
        let bytes: [UInt8]
        /// Of the frame that it came in, in bytes.
        let size: Int
    }

    /// Of a connection that is gone: behind what its client sent before.
    struct Closing {
        let session: Session
        let connection: WebSocketConnection
        let code: UInt16
        let reason: String
    }

    /// From when on messages wait.
    let since: NIODeadline
    private(set) var waiting: [Waiting] = []
    private(set) var closings: [Closing] = []
    /// Those of whom a message waits.
    private var senders: Set<Session> = []
    private var size = 0

    init(since: NIODeadline) { self.since = since }

    /// False when there is no room for it.
    mutating func append(_ message: Waiting, within limits: NodeConfiguration.Limits) -> Bool {
        let size = max(message.size, message.bytes.count)
        guard waiting.count < limits.waitingPublishes, self.size + size <= limits.waitingPublishBytes else {
            return false
        }
        waiting.append(message)
        senders.insert(message.session)
        self.size += size
        return true
    }

    /// False when nothing of the session waits, so that its end need not.
    mutating func append(_ closing: Closing) -> Bool {
        guard senders.contains(closing.session) else { return false }
        closings.append(closing)
        return true
    }
}

/// A node that was stopped for a while reads its clients as soon as it runs, maybe before it hears what was ordered.
extension Shard {
    /// - Parameter now: monotonic nanoseconds, of a frame that was just read.
    func noticeStandstill(_ now: UInt64) {
        guard hub.moderation.isOutdated(now), standstill == nil else { return }
        standstill = Standstill(since: .uptimeNanoseconds(now))
        send(.catchUp)
    }

    /// All that waits goes its way, judged by the orders that are known now.
    func endStandstill() {
        guard let ended = standstill else { return }
        standstill = nil
        waitedSince = ended.since
        defer { waitedSince = nil }
        // Of each session what was held before is in front.
        for session in Array(sessions.values) { session.releaseHeld() }
        for waiting in ended.waiting { waiting.session.goOn(with: waiting) }
        for closing in ended.closings {
            closing.session.webSocketClosed(closing.connection, code: closing.code, reason: closing.reason)
        }
    }
}
