import ChatCore
import ClusterState
import NIOCore

/// Keeps ``Moderation`` as Redis has it. Confined to the hub's loop.
///
/// 1. Reads all orders at the start, when the node may have missed some, and when their version is another than it knows.
/// 2. Otherwise takes each change as it is told, which names the version before it: one that was missed is found by that.
/// 3. Says what is new, once; and asks Redis to forget what is past.
/// 4. Notices that the node stood still, and then says when the orders of that time are known.
final class ModerationFeed {
    struct Change {
        /// Came into force, or changed; at the first reading all.
        var new: [ModerationOrder] = []
        /// Lifted or past.
        var gone: [ModerationOrder.Key] = []
        var isFirst = false

        var isEmpty: Bool { new.isEmpty && gone.isEmpty }
    }

    private let moderation: Moderation
    private let store: ModerationStore
    private let eventLoop: any EventLoop
    private let isConnected: () -> Bool
    private let onChange: (Change) -> Void
    private let onCaughtUp: () -> Void

    /// `nil`: nothing was read yet.
    private var version: String?
    private var isReading = false
    private var mustReadAgain = false
    /// What was told while they were read.
    private var told: [ModerationChange] = []
    private var readBegan = NIODeadline.uptimeNanoseconds(0)
    private var readNext = NIODeadline.uptimeNanoseconds(0)
    private var lastTick = NIODeadline.now()
    /// Since when it is waited for a reading; `nil`: the orders are known.
    private var outdatedSince: NIODeadline?

    /// How late a change is known at the latest whose word was lost, though the subscription never was deaf.
    static let interval: TimeAmount = .seconds(5)
    static let retryInterval: TimeAmount = .milliseconds(500)
    /// So long a node that stood still waits for a Redis that does not answer. Then it goes by what it knows, like one that is
    /// cut off from Redis.
    private static let waitsAtMost: TimeAmount = .seconds(2)

    /// - Parameter onCaughtUp: after ``catchUp()``, or after the node stood still: what was told meanwhile is known.
    init(
        _ moderation: Moderation, store: ModerationStore, eventLoop: any EventLoop,
        isConnected: @escaping () -> Bool, onChange: @escaping (Change) -> Void, onCaughtUp: @escaping () -> Void
    ) {
        self.moderation = moderation
        self.store = store
        self.eventLoop = eventLoop
        self.isConnected = isConnected
        self.onChange = onChange
        self.onCaughtUp = onCaughtUp
    }

    /// To be called a few times a second.
    func tick() {
        let now = NIODeadline.now()
        if now - lastTick > Moderation.patience {
            outdatedSince = nil
            catchUp()
        }
        lastTick = now
        if let outdatedSince, now - outdatedSince >= Self.waitsAtMost { caughtUp() }
        if outdatedSince == nil { moderation.setKnown(now) }
        if isConnected(), readNext <= now { read() }
        guard version != nil else { return }
        let past = moderation.change { $0.expire(moderation.now) }
        guard !past.isEmpty else { return }
        store.expire(past)
        onChange(Change(gone: past))
    }

    /// A message of the control channel for which ``ModerationChange/isOne(_:)`` holds.
    func heard(_ payload: UnsafeRawBufferPointer) {
        guard let change = ModerationChange(parsing: payload) else { return read() }
        if isReading { told.append(change) }
        // What is known holds an older one already, and those behind it.
        guard let version, change.isNewer(than: version) else { return read() }
        // Also when one before it was missed: it holds at once, and those come with the next reading.
        if moderation.change({ $0.apply(change) }) {
            onChange(
                change.terms.map { Change(new: [ModerationOrder(change.key, $0)]) } ?? Change(gone: [change.key]))
        }
        if change.previous == version { self.version = change.next } else { read() }
    }

    /// What clients sent waits for it.
    func catchUp() {
        guard outdatedSince == nil else { return }
        outdatedSince = .now()
        read()
    }

    private func caughtUp() {
        outdatedSince = nil
        onCaughtUp()
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
        readBegan = .now()
        readNext = readBegan + Self.interval
        store.head().assumeIsolated().whenComplete { result in
            switch result {
            case .success((let version, let now)):
                self.moderation.setClock(now)
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
        var changes = Change(isFirst: self.version == nil)
        var table = ModerationTable(orders)
        let past = table.expire(moderation.now)
        if !past.isEmpty { store.expire(past) }
        self.version = version
        // They may have been read before these or behind them.
        for change in told where change.isNewer(than: version) {
            table.apply(change)
            if change.previous == self.version { self.version = change.next } else { mustReadAgain = true }
        }
        let before = moderation.replace(with: table)
        for (key, terms) in table.orders where before.orders[key] != terms {
            changes.new.append(ModerationOrder(key, terms))
        }
        for key in before.orders.keys where table.orders[key] == nil { changes.gone.append(key) }
        if changes.isFirst || !changes.isEmpty { onChange(changes) }
    }

    private func ended() {
        isReading = false
        told = []
        if outdatedSince != nil {
            // Else the node stood still again, or Redis was slow.
            if .now() - readBegan <= Moderation.patience {
                moderation.setKnown(readBegan)
                caughtUp()
            } else {
                mustReadAgain = true
            }
        }
        if mustReadAgain { read() }
    }

    private func failed() {
        isReading = false
        readNext = .now() + Self.retryInterval
    }
}

extension ModerationTable {
    /// - Returns: whether that changes anything.
    @discardableResult
    fileprivate mutating func apply(_ change: ModerationChange) -> Bool {
        guard let terms = change.terms else { return remove(change.key) != nil }
        guard orders[change.key] != terms else { return false }
        put(ModerationOrder(change.key, terms))
        return true
    }
}
