import ChatCore
import NIOCore
import WireProtocol

extension Shard {
    /// What a shard keeps while it sends its clients away.
    struct Leaving {
        var departures = Departures<Session>()
        /// Whether everybody has a moment at which to go; who comes later gets the last.
        var isPaced = false
        var timer: Scheduled<Void>?
        /// Succeeds when no connection is left, or the clients may stay after all.
        let over: EventLoopPromise<Void>
    }

    /// Takes no more clients.
    ///
    /// - Returns: how many there are.
    func beginDraining() -> Int {
        eventLoop.assertInEventLoop()
        if leaving == nil { leaving = Leaving(over: eventLoop.makePromise()) }
        return sessions.count
    }

    /// Sends every client away, each at a moment of its own. Succeeds when the last connection is closed.
    ///
    /// - Parameter moments: rising; behind the last of them clients go together with that one.
    func sendAway(at moments: [NIODeadline]) -> EventLoopFuture<Void> {
        eventLoop.assertInEventLoop()
        guard let over = leaving?.over else { return eventLoop.makeSucceededVoidFuture() }
        let last = moments.last ?? .now()
        for (index, session) in sessions.values.enumerated() {
            let moment = index < moments.count ? moments[index] : last
            leaving?.departures.add(session, at: moment.uptimeNanoseconds)
        }
        leaving?.isPaced = true
        depart()
        connectionEnded()
        return over.futureResult
    }

    /// Who is still there stays, and others may come.
    func stay() {
        eventLoop.assertInEventLoop()
        let leaving = leaving
        self.leaving = nil
        leaving?.timer?.cancel()
        leaving?.over.succeed()
    }

    /// It was let in before the shard began to drain.
    func came(_ session: Session) {
        guard leaving?.isPaced == true else { return }
        leaving?.departures.addLast(session, now: NIODeadline.now().uptimeNanoseconds)
        depart()
    }

    func connectionEnded() {
        if leaving?.isPaced == true, metrics.connections == 0 { leaving?.over.succeed() }
    }

    /// One timer for all who are to go.
    private func depart() {
        guard let actions = leaving?.departures.advance(now: NIODeadline.now().uptimeNanoseconds) else { return }
        leaving?.timer?.cancel()
        leaving?.timer = actions.next.map { next in
            eventLoop.assumeIsolated().scheduleTask(deadline: .uptimeNanoseconds(next)) { self.depart() }
        }
        for (session, delay) in actions.tell { session.announceEnd(in: .nanoseconds(Int64(delay))) }
        for session in actions.close { session.end(.draining) }
    }
}
