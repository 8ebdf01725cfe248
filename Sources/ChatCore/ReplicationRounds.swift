/// When publishes may go out and when replicas are counted, for a node that acknowledges only what replicas have.
///
/// 1. One round at a time: batches go out until the first of them is answered; with the last answer the replicas are
///    counted (`WAIT`), once for all of them.
/// 2. Nothing is stored while it is known, or likely, that too few replicas follow: then they are counted again and
///    again, and publishes wait for that as for a Redis that is away.
package struct ReplicationRounds: Sendable {
    private enum State {
        /// The connection is new, or too few replicas had what was last asked for. Goes to `counting`.
        case short
        /// Batches go out. Goes to `counting` with the last answer of a round, to `short` with the connection.
        case open
        /// One count is under way, and no batch. Goes to `open` when enough replicas have all, else to `short`.
        case counting
    }

    private var state = State.short
    private var batchesUnderWay = 0
    private var isStored = false
    /// Of the round.
    private var deadline: UInt64 = 0

    package init() {}

    package var mayPublish: Bool { state == .open && !isStored }

    /// A batch goes out, which has to be answered by this time.
    ///
    /// - Returns: by when the round has to be counted, as far as it is known: that of the first of its batches to end.
    package mutating func sent(deadline: UInt64) -> UInt64 {
        self.deadline = batchesUnderWay == 0 ? deadline : min(deadline, self.deadline)
        batchesUnderWay += 1
        return self.deadline
    }

    package enum Action: Equatable {
        case count
        case none
    }

    /// - Parameter isStored: false when the batch failed, or nobody knows.
    package mutating func answered(isStored: Bool) -> Action {
        batchesUnderWay -= 1
        self.isStored = self.isStored || isStored
        guard state == .open, self.isStored, batchesUnderWay == 0 else { return .none }
        state = .counting
        return .count
    }

    /// To be asked now and then: while too few replicas follow they are counted again.
    package mutating func due() -> Action {
        guard state == .short else { return .none }
        state = .counting
        return .count
    }

    package mutating func counted(isEnough: Bool) {
        guard state == .counting else { return }
        state = isEnough ? .open : .short
        isStored = false
    }

    /// The connection on which all this happened is gone: what it stored cannot be counted on another.
    package mutating func connectionLost() {
        state = .short
        isStored = false
    }
}
