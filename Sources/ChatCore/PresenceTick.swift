/// The presence changes of one room in one tick, folded so that a client gets one event: who came and went again within
/// the tick is not mentioned, but every change has raised `pv`.
package struct PresenceTick: Sendable {
    package enum Change: Sendable, Equatable {
        case joined
        case left
        case updated
    }

    private var order: [[UInt8]] = []
    private var changes: [[UInt8]: (change: Change, member: String)] = [:]
    package private(set) var count = 0
    package private(set) var pv: Int64 = 0

    package init() {}

    package var isEmpty: Bool { pv == 0 }

    /// - Parameters:
    ///   - key: the bytes that name the user in every member object of theirs.
    ///   - member: the JSON object to send.
    package mutating func add(_ change: Change, key: [UInt8], member: String, count: Int, pv: Int64) {
        guard pv > self.pv else { return }
        self.pv = pv
        self.count = count
        guard let earlier = changes[key] else {
            order.append(key)
            changes[key] = (change, member)
            return
        }
        switch (earlier.change, change) {
        case (.joined, .left):
            changes[key] = nil
            order.removeAll { $0 == key }
        case (.joined, .joined), (.joined, .updated):
            changes[key] = (.joined, member)
        case (.left, .joined):
            changes[key] = (.updated, member)
        case (.left, .left), (.left, .updated):
            changes[key] = (.left, member)
        case (.updated, _):
            changes[key] = (change == .joined ? .updated : change, member)
        }
    }

    package func members(_ change: Change) -> [String] {
        order.compactMap { key in
            changes[key].flatMap { $0.change == change ? $0.member : nil }
        }
    }
}
