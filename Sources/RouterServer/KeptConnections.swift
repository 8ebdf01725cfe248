import NIOCore
import Synchronization

/// What is kept of each address, and until when; the longest kept first.
struct KeptList<Connection: AnyObject> {
    private struct Entry {
        let connection: Connection
        let end: NIODeadline
    }

    private let most: Int
    private let total: Int
    private let time: TimeAmount
    private var entries: [String: [Entry]] = [:]
    private var count = 0

    /// - Parameters:
    ///   - most: of one address.
    ///   - total: of all.
    ///   - time: how long each is kept.
    init(most: Int, total: Int, time: TimeAmount) { (self.most, self.total, self.time) = (most, total, time) }

    /// The one that was used last: the likeliest to be open still, and the others get their time.
    mutating func take(_ address: String) -> Connection? {
        guard var list = entries[address], let last = list.popLast() else { return nil }
        count -= 1
        entries[address] = list.isEmpty ? nil : list
        return last.connection
    }

    /// - Returns: the one that gives way, which may be this one.
    mutating func keep(_ connection: Connection, of address: String, now: NIODeadline) -> Connection? {
        guard most > 0, total > 0 else { return connection }
        var first: Connection?
        if entries[address]?.count ?? 0 >= most {
            first = removeFirst(of: address)
        } else if count >= total {
            first = entries.min { $0.value[0].end < $1.value[0].end }.flatMap { removeFirst(of: $0.key) }
        }
        entries[address, default: []].append(Entry(connection: connection, end: now + time))
        count += 1
        return first
    }

    private mutating func removeFirst(of address: String) -> Connection? {
        guard var list = entries[address] else { return nil }
        let first = list.removeFirst()
        count -= 1
        entries[address] = list.isEmpty ? nil : list
        return first.connection
    }

    mutating func remove(_ connection: Connection, of address: String) {
        guard var list = entries[address], let index = list.firstIndex(where: { $0.connection === connection })
        else { return }
        list.remove(at: index)
        count -= 1
        entries[address] = list.isEmpty ? nil : list
    }

    /// Takes those out whose time is over.
    mutating func expire(now: NIODeadline) -> [Connection] {
        var expired: [Connection] = []
        for (address, list) in entries {
            let over = list.prefix { $0.end <= now }
            guard !over.isEmpty else { continue }
            expired += over.map(\.connection)
            count -= over.count
            entries[address] = over.count == list.count ? nil : Array(list.dropFirst(over.count))
        }
        return expired
    }

    /// When the next one's time is over; nil when none is kept.
    var nextEnd: NIODeadline? { entries.values.compactMap { $0.first?.end }.min() }
}

/// One loop's connections to nodes over which another request may go (RFC 9112 section 9.3).
///
/// `@unchecked Sendable`: all but the constants is used on `eventLoop` only.
final class KeptConnections: @unchecked Sendable {
    private let eventLoop: any EventLoop
    private var list: KeptList<NodeConnection>
    private var timerRuns = false

    init(on eventLoop: any EventLoop, limits: RouterLimits) {
        self.eventLoop = eventLoop
        list = KeptList(
            most: limits.nodeKeptConnections, total: limits.keptConnections, time: limits.nodeKeepAliveTime)
    }

    func take(_ address: String) -> NodeConnection? {
        eventLoop.assertInEventLoop()
        let connection = list.take(address)
        connection?.wasTaken()
        return connection
    }

    func keep(_ connection: NodeConnection) {
        eventLoop.assertInEventLoop()
        connection.isKept(in: self)
        list.keep(connection, of: connection.address, now: .now())?.abandon()
        watch()
    }

    /// It has ended by itself.
    func lost(_ connection: NodeConnection) { list.remove(connection, of: connection.address) }

    /// From any thread.
    func closeAll() {
        eventLoop.execute { for connection in self.list.expire(now: .distantFuture) { connection.abandon() } }
    }

    private func watch() {
        guard !timerRuns, let end = list.nextEnd else { return }
        timerRuns = true
        eventLoop.assumeIsolated().scheduleTask(deadline: end) {
            self.timerRuns = false
            for connection in self.list.expire(now: .now()) { connection.abandon() }
            self.watch()
        }
    }
}

/// Those of all loops.
final class KeptOfLoops: Sendable {
    private let limits: RouterLimits
    private let loops = Mutex<[ObjectIdentifier: KeptConnections]>([:])

    init(limits: RouterLimits) { self.limits = limits }

    var isAllowed: Bool { min(limits.nodeKeptConnections, limits.keptConnections) > 0 }

    /// nil where none is to be kept.
    func on(_ eventLoop: any EventLoop) -> KeptConnections? {
        guard isAllowed else { return nil }
        return loops.withLock { loops in
            if let kept = loops[ObjectIdentifier(eventLoop)] { return kept }
            let kept = KeptConnections(on: eventLoop, limits: limits)
            loops[ObjectIdentifier(eventLoop)] = kept
            return kept
        }
    }

    func closeAll() {
        for kept in loops.withLock({ Array($0.values) }) { kept.closeAll() }
    }
}
