package import WireProtocol

/// The orders in force, ready to be asked. A question costs a lookup for each thing that may be meant, and nothing where there
/// is no order of its sort; addresses one for each prefix length that is in use.
///
/// A value: whoever has a copy may ask it on any thread. Orders that are past do not count, whether or not they were removed.
package struct ModerationTable: Sendable {
    package typealias Key = ModerationOrder.Key
    package typealias Terms = ModerationOrder.Terms

    package private(set) var orders: [Key: Terms] = [:]
    /// By kind and sort of target: how many.
    private var counts = [Int](repeating: 0, count: 16)
    private var mutes = 0
    /// How many of each prefix length.
    private var prefixLengths: [UInt8: Int] = [:]
    /// Those that end by themselves, by the minute or so of their end: 2^16 ms.
    private var endings: [Int64: Set<Key>] = [:]
    /// Nothing ends before this.
    private var nextEnd = Int64.max

    package init() {}

    package init(_ orders: some Sequence<ModerationOrder>) {
        for order in orders { put(order) }
    }

    package var isEmpty: Bool { orders.isEmpty }

    // MARK: Changes

    package mutating func put(_ order: ModerationOrder) {
        if let earlier = orders.updateValue(order.terms, forKey: order.key) {
            forget(end: earlier.until, of: order.key)
        } else {
            count(order.key, 1)
        }
        guard let until = order.terms.until else { return }
        endings[until >> 16, default: []].insert(order.key)
        nextEnd = min(nextEnd, until)
    }

    @discardableResult
    package mutating func remove(_ key: Key) -> ModerationOrder? {
        guard let terms = orders.removeValue(forKey: key) else { return nil }
        count(key, -1)
        forget(end: terms.until, of: key)
        return ModerationOrder(key, terms)
    }

    /// Removes those that are past; most calls cost one comparison, and the others look at those alone that end soon.
    package mutating func expire(_ now: Int64) -> [Key] {
        guard nextEnd <= now else { return [] }
        let near = endings.filter { $0.key <= now >> 16 }.values.flatMap { $0 }
        let past = near.filter { orders[$0]?.isInForce(now) == false }
        for key in past { remove(key) }
        let next = endings.min { $0.key < $1.key }?.value ?? []
        nextEnd = next.compactMap { orders[$0]?.until }.min() ?? .max
        return past
    }

    private mutating func forget(end: Int64?, of key: Key) {
        guard let span = end.map({ $0 >> 16 }) else { return }
        endings[span]?.remove(key)
        if endings[span]?.isEmpty == true { endings[span] = nil }
    }

    private mutating func count(_ key: Key, _ change: Int) {
        counts[Self.sort(key.kind, key.target)] += change
        if key.kind == .mute { mutes += change }
        guard case .address(let range) = key.target else { return }
        let left = prefixLengths[range.prefixLength, default: 0] + change
        prefixLengths[range.prefixLength] = left > 0 ? left : nil
    }

    private static func sort(_ kind: ModerationOrder.Kind, _ target: ModerationOrder.Target) -> Int {
        let row =
            switch kind {
            case .ban: 0
            case .mute: 4
            case .revoke: 8
            case .kick: 12
            }
        return switch target {
        case .user: row
        case .session: row + 1
        case .token: row + 2
        case .address: row + 3
        }
    }

    // MARK: Questions

    /// Why the subject may not be connected, if it may not.
    package func exclusion(of subject: ModerationSubject, _ now: Int64) -> ModerationOrder? {
        guard !orders.isEmpty else { return nil }
        return find(.ban, subject, nil, now) ?? subject.session.flatMap { find(.kick, .session($0), now) }
            ?? revocation(of: subject, now)
    }

    /// Why the subject must go, of a table of orders that are new: those that are given once are met as well.
    package func expulsion(of subject: ModerationSubject, _ now: Int64) -> ModerationOrder? {
        exclusion(of: subject, now) ?? subject.token?.id.flatMap { find(.kick, .token($0), now) }
            ?? find(.kick, subject.address, now)
    }

    /// Why the subject may not speak in the room, if it may not.
    ///
    /// - Parameter room: `nil`: what is said everywhere at once.
    package func mute(of subject: ModerationSubject, in room: RoomName?, _ now: Int64) -> ModerationOrder? {
        guard mutes > 0 else { return nil }
        return find(.mute, subject, room, now)
    }

    /// Whether ``mute(of:in:_:)`` finds anybody.
    package var hasMutes: Bool { mutes > 0 }

    /// Why the user may not be in the room, though they may be elsewhere.
    package func ban(of user: UserName, from room: RoomName, _ now: Int64) -> ModerationOrder? {
        find(.ban, .user(user), in: room, now)
    }

    private func revocation(of subject: ModerationSubject, _ now: Int64) -> ModerationOrder? {
        if let session = subject.session, let order = find(.revoke, .session(session), now) { return order }
        guard let token = subject.token else { return nil }
        if let id = token.id, let order = find(.revoke, .token(id), now) { return order }
        let isMet = { (order: ModerationOrder) in token.earliestIssue.map { $0 <= order.terms.since } ?? true }
        if let user = subject.user, let order = find(.revoke, .user(user), now), isMet(order) { return order }
        return find(.revoke, subject.address, now, where: isMet)
    }

    /// - Parameter room: also what is ordered for it.
    private func find(
        _ kind: ModerationOrder.Kind, _ subject: ModerationSubject, _ room: RoomName?, _ now: Int64
    ) -> ModerationOrder? {
        if let user = subject.user {
            if let order = find(kind, .user(user), now) { return order }
            if let room, let order = find(kind, .user(user), in: room, now) { return order }
        }
        if let session = subject.session, let order = find(kind, .session(session), now) { return order }
        if let id = subject.token?.id, let order = find(kind, .token(id), now) { return order }
        return find(kind, subject.address, now)
    }

    private func find(
        _ kind: ModerationOrder.Kind, _ address: ClientAddress, _ now: Int64,
        where isMet: (ModerationOrder) -> Bool = { _ in true }
    ) -> ModerationOrder? {
        for length in prefixLengths.keys where length >= 96 || !address.isIPv4 {
            let range = AddressRange(of: address, prefixLength: length)
            if let order = find(kind, .address(range), now), isMet(order) { return order }
        }
        return nil
    }

    private func find(
        _ kind: ModerationOrder.Kind, _ target: ModerationOrder.Target, in room: RoomName? = nil, _ now: Int64
    ) -> ModerationOrder? {
        guard counts[Self.sort(kind, target)] > 0 else { return nil }
        let key = Key(unchecked: kind, target, room)
        guard let terms = orders[key], terms.isInForce(now) else { return nil }
        return ModerationOrder(key, terms)
    }
}
