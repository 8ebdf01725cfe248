/// When to ping whom, and who did not answer: one wheel for all connections of a loop instead of a timer for each.
/// Times are monotonic nanoseconds; call ``advance(now:)`` once a ``tick``.
///
/// Each element is pinged once an interval, at a slot of its own, which spreads the pings over the interval. When the
/// clock jumped (the process stood still) nothing is found dead by that jump: the deadlines move with it.
///
/// An element is in one wheel at most, and knows its place there: the wheel has one reference to it and no table.
package struct HeartbeatWheel<Element: WheelElement> {
    package static var tick: Int64 { 1_000_000_000 }

    private let timeout: UInt64
    private let authenticationTimeout: UInt64
    private var slots: [[Element]]
    private var current = 0
    /// Slots whose pings may still be answered.
    private var pinged: [(elements: [Element], at: UInt64, deadline: UInt64)] = []
    private var unauthenticated: [Element: UInt64] = [:]
    /// Those who may be taken, in the order in which they came; who is not in `unauthenticated` any more counts no longer.
    private var arrivals: ArraySlice<Element> = []
    private var advancedAt: UInt64?

    package struct Actions {
        package var ping: [Element] = []
        /// Their ping was sent a whole timeout ago, at `pingedAt`: whoever said nothing since is gone.
        package var check: [(element: Element, pingedAt: UInt64)] = []
        /// Their time to say who they are is over; each is named once.
        package var unauthenticated: [Element] = []
    }

    package init(interval: Int64, timeout: Int64, authenticationTimeout: Int64) {
        self.timeout = UInt64(timeout)
        self.authenticationTimeout = UInt64(authenticationTimeout)
        self.slots = Array(repeating: [], count: max(1, Int(interval / Self.tick)))
    }

    /// - Parameters:
    ///   - slot: a random number; it chooses the moment within the interval.
    ///   - givesWay: whether ``takeLongestUnauthenticated()`` may take it.
    package mutating func add(_ element: Element, now: UInt64, slot: UInt64, givesWay: Bool = true) {
        let index = Int(slot % UInt64(slots.count))
        element.wheelPlace = WheelPlace(slot: Int32(index), row: Int32(slots[index].count))
        slots[index].append(element)
        unauthenticated[element] = now + authenticationTimeout
        if givesWay { arrivals.append(element) }
    }

    /// The one that has waited longest without saying who it is; it is not waited for any longer.
    package mutating func takeLongestUnauthenticated() -> Element? {
        forgetFirstArrivals()
        guard let element = arrivals.popFirst() else { return nil }
        unauthenticated[element] = nil
        return element
    }

    private mutating func forgetFirstArrivals() {
        arrivals = arrivals.drop { unauthenticated[$0] == nil }
        // What was dropped stands in the buffer until then, and would live as long.
        if arrivals.startIndex > arrivals.count { arrivals = ArraySlice(Array(arrivals)) }
    }

    package mutating func authenticated(_ element: Element) {
        unauthenticated[element] = nil
    }

    package mutating func remove(_ element: Element) {
        unauthenticated[element] = nil
        let place = element.wheelPlace
        guard place.isTaken else { return }
        element.wheelPlace = WheelPlace()
        let (slot, row) = (Int(place.slot), Int(place.row))
        let last = slots[slot].removeLast()
        guard row < slots[slot].count else { return }
        slots[slot][row] = last
        last.wheelPlace = place
    }

    package mutating func advance(now: UInt64) -> Actions {
        var actions = Actions()
        let elapsed = advancedAt.map { now - min($0, now) } ?? 0
        advancedAt = now
        if elapsed > 2 * UInt64(Self.tick) {
            for index in pinged.indices { pinged[index].deadline += elapsed }
            for (element, deadline) in unauthenticated { unauthenticated[element] = deadline + elapsed }
        }
        let expired = pinged.prefix { $0.deadline <= now }
        for round in expired {
            actions.check += round.elements.filter(\.wheelPlace.isTaken).map { ($0, round.at) }
        }
        pinged.removeFirst(expired.count)
        current = (current + 1) % slots.count
        actions.ping = slots[current]
        if !actions.ping.isEmpty { pinged.append((actions.ping, now, now + timeout)) }
        forgetFirstArrivals()
        if !unauthenticated.isEmpty {
            actions.unauthenticated = unauthenticated.filter { $0.value <= now }.map(\.key)
            for element in actions.unauthenticated { unauthenticated[element] = nil }
        }
        return actions
    }
}

package protocol WheelElement: AnyObject, Hashable {
    /// The wheel's own.
    var wheelPlace: WheelPlace { get set }
}

package struct WheelPlace: Sendable {
    fileprivate var slot: Int32 = -1
    fileprivate var row: Int32 = -1

    package init() {}

    fileprivate init(slot: Int32, row: Int32) { (self.slot, self.row) = (slot, row) }

    fileprivate var isTaken: Bool { slot >= 0 }
}
