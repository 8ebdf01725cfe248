/// Whether a node takes clients, and what of an operator or a signal changes that. Decides; ``Node`` acts.
struct DrainState {
    private enum State {
        /// Takes clients.
        case serving
        /// Sends its clients away by an operator's order, which may be taken back.
        case draining
        /// All have left, or their time is over: it ends if Redis says that the order still stands.
        case asking
        /// Sends its clients away, or goes on with it, and ends. Nothing takes that back.
        case stopping
        /// Removes what it has in Redis.
        case ended
    }

    private var state = State.serving
    /// Counts the drains: what is heard of an earlier one means nothing any more.
    private(set) var drain = 0

    enum OrderAction: Equatable {
        /// Take no more clients, and send those away that are there.
        case sendAway
        case none
    }

    /// An operator ordered it to drain; may be heard again and again.
    mutating func ordered() -> OrderAction {
        switch state {
        case .serving:
            state = .draining
            drain += 1
            return .sendAway
        case .draining, .asking, .stopping, .ended: return .none
        }
    }

    enum TakeBackAction: Equatable {
        /// Whoever is still there stays, and others may come.
        case takeClients
        case none
    }

    /// The order does not stand any more.
    mutating func takenBack() -> TakeBackAction {
        switch state {
        case .draining, .asking:
            state = .serving
            return .takeClients
        case .serving, .stopping, .ended: return .none
        }
    }

    enum StopAction: Equatable {
        case sendAway
        /// It drains already: from now on nothing takes that back.
        case goOn
        case end
        case none
    }

    /// By a signal, or because another process has its name.
    mutating func stop() -> StopAction {
        switch state {
        case .serving:
            state = .stopping
            drain += 1
            return .sendAway
        case .draining:
            state = .stopping
            return .goOn
        case .asking:
            state = .ended
            return .end
        case .stopping, .ended: return .none
        }
    }

    enum LeftAction: Equatable {
        /// Say in Redis that the node ends, unless the order was taken back.
        case ask
        case end
        case none
    }

    /// No client is left, or their time is over.
    mutating func left(drain: Int) -> LeftAction {
        guard drain == self.drain else { return .none }
        switch state {
        case .draining:
            state = .asking
            return .ask
        case .stopping:
            state = .ended
            return .end
        case .serving, .asking, .ended: return .none
        }
    }

    enum AnswerAction: Equatable {
        case end
        case none
    }

    /// Redis has it that the node ends, or did not answer in time.
    mutating func confirmed(drain: Int) -> AnswerAction {
        guard drain == self.drain else { return .none }
        switch state {
        case .asking:
            state = .ended
            return .end
        case .serving, .draining, .stopping, .ended: return .none
        }
    }
}
