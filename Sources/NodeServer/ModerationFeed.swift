import ChatCore
import ClusterState
import NIOCore

/// The orders in force, as a node knows them. Confined to the hub's loop.
///
/// 1. Reads them all at the start, when the node may have missed some, and when their version is another than it knows.
/// 2. Otherwise takes each change as it is told, which names the version before it: one that was missed is found by that.
/// 3. Says what is new, once; and asks Redis to forget what is past.
final class ModerationFeed {
    struct Change {
        /// Came into force, or changed; at the first reading all.
        var new: [ModerationOrder] = []
        /// Lifted or past.
        var gone: [ModerationOrder.Key] = []
        var isFirst = false

        var isEmpty: Bool { new.isEmpty && gone.isEmpty }
    }

    private let store: ModerationStore
    private let eventLoop: any EventLoop
    private let isConnected: () -> Bool
    private let onChange: (Change) -> Void

    private(set) var table = ModerationTable()
    /// What the clock of Redis is ahead of this process's uptime, in milliseconds.
    private(set) var clock: Int64 = 0
    /// `nil`: nothing was read yet.
    private var version: String?
    private var isReading = false
    private var mustReadAgain = false
    /// What was told while they were read.
    private var told: [ModerationChange] = []
    private var readNext = NIODeadline.uptimeNanoseconds(0)

    /// How late a change is known at the latest whose word was lost, though the subscription never was deaf.
    static let interval: TimeAmount = .seconds(5)
    static let retryInterval: TimeAmount = .milliseconds(500)

    init(
        store: ModerationStore, eventLoop: any EventLoop, isConnected: @escaping () -> Bool,
        onChange: @escaping (Change) -> Void
    ) {
        self.store = store
        self.eventLoop = eventLoop
        self.isConnected = isConnected
        self.onChange = onChange
    }

    /// Until then nobody may be let in.
    var isRead: Bool { version != nil }

    var now: Int64 { Self.uptime + clock }

    static var uptime: Int64 { Int64(NIODeadline.now().uptimeNanoseconds / 1_000_000) }

    /// To be called a few times a second.
    func tick() {
        if isConnected(), readNext <= .now() { read() }
        guard isRead else { return }
        let past = table.expire(now)
        guard !past.isEmpty else { return }
        store.expire(past)
        onChange(Change(gone: past))
    }

    /// A message of the control channel for which ``ModerationChange/isOne(_:)`` holds.
    func heard(_ payload: UnsafeRawBufferPointer) {
        guard let change = ModerationChange(parsing: payload) else { return read() }
        if isReading { told.append(change) }
        guard isRead else { return read() }
        // Also when one before it was missed: it holds at once, and those come with the next reading.
        var changes = Change()
        apply(change, &changes)
        if !changes.isEmpty { onChange(changes) }
        if change.previous == version { version = change.next } else { read() }
    }

    private func apply(_ change: ModerationChange, _ changes: inout Change) {
        guard let terms = change.terms else {
            if table.remove(change.key) != nil { changes.gone.append(change.key) }
            return
        }
        guard table.orders[change.key] != terms else { return }
        let order = ModerationOrder(change.key, terms)
        table.put(order)
        changes.new.append(order)
    }

    /// Reads the version, and everything if it is another.
    func read() {
        guard !isReading else {
            mustReadAgain = true
            return
        }
        isReading = true
        mustReadAgain = false
        told = []
        readNext = .now() + Self.interval
        store.head().assumeIsolated().whenComplete { result in
            switch result {
            case .success((let version, let now)):
                self.clock = now - Self.uptime
                guard version != self.version else { return self.ended() }
                self.readAll(version)
            case .failure: self.failed()
            }
        }
    }

    private func readAll(_ version: String) {
        store.all().assumeIsolated().whenComplete { result in
            switch result {
            case .success(let orders):
                self.replace(orders, version)
                self.ended()
            case .failure: self.failed()
            }
        }
    }

    /// - Parameter version: that they have at least.
    private func replace(_ orders: [ModerationOrder], _ version: String) {
        var changes = Change(isFirst: !isRead)
        let before = table
        table = ModerationTable(orders)
        let past = table.expire(now)
        if !past.isEmpty { store.expire(past) }
        self.version = version
        // They may have been read before these or behind them.
        let later = (told.lastIndex { $0.next == version } ?? -1) + 1
        var ignored = Change()
        for change in told[later...] {
            apply(change, &ignored)
            if change.previous == self.version { self.version = change.next } else { mustReadAgain = true }
        }
        for (key, terms) in table.orders where before.orders[key] != terms {
            changes.new.append(ModerationOrder(key, terms))
        }
        for key in before.orders.keys where table.orders[key] == nil { changes.gone.append(key) }
        if changes.isFirst || !changes.isEmpty { onChange(changes) }
    }

    private func ended() {
        isReading = false
        told = []
        if mustReadAgain { read() }
    }

    private func failed() {
        isReading = false
        readNext = .now() + Self.retryInterval
    }
}
