import Synchronization

/// Takes down what the clients of a run see, a history for each room.
final class Recorder: Sendable {
    private let start = ContinuousClock.now
    private let histories = Mutex<[String: [Observation]]>([:])

    /// Milliseconds since the run began.
    var now: Int64 {
        let (seconds, attoseconds) = start.duration(to: .now).components
        return seconds * 1000 + attoseconds / 1_000_000_000_000_000
    }

    func note(_ event: Observation.Event, of client: String, in room: String) {
        let now = now
        histories.withLock { $0[room, default: []].append(Observation(at: now, client: client, event: event)) }
    }

    func history(of room: String) -> [Observation] { histories.withLock { $0[room] ?? [] } }
}
