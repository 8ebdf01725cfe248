import TestSupport

/// What a client must keep to lose nothing: where it stands in its room, what has no ack, who is there. A pure value.
struct ClientPosition: Sendable {
    struct Unacknowledged: Sendable {
        let id: String
        let text: String
        /// When it was first sent; the server knows the id for two minutes from then on.
        var firstSent: Int64?
        /// After a refusal: when to send it again. `nil`: it is on its way.
        var again: Int64?
    }

    /// A retry within it is stored once (G3).
    static let dedupeWindow: Int64 = 120_000

    private(set) var epoch: String?
    private(set) var seq: Int64 = 0
    private(set) var tag: String?
    var unacknowledged: [Unacknowledged] = []
    private(set) var members: Set<String> = []
    private(set) var pv: Int64 = -1
    /// The list is not whole, or an event was missed.
    private(set) var mustAskForMembers = false

    /// The `since` of a join, when it was in the room before.
    var since: JSON? {
        guard let epoch else { return nil }
        var since: [String: JSON] = ["epoch": .string(epoch), "seq": .int(seq)]
        if let tag { since["tag"] = .string(tag) }
        return .object(since)
    }

    mutating func joined(_ message: JSON) {
        if epoch == nil {
            epoch = message["epoch"]?.string
            (seq, tag) = (message["seq"]?.int ?? 0, message["tag"]?.string)
        }
        take(list: message)
    }

    mutating func advance(to seq: Int64, tag: String?) {
        guard seq > self.seq else { return }
        (self.seq, self.tag) = (seq, tag)
    }

    mutating func gap(epoch: String, to seq: Int64) {
        if epoch != self.epoch { (pv, mustAskForMembers) = (-1, true) }
        (self.epoch, self.seq, tag) = (epoch, seq, nil)
    }

    mutating func presence(_ message: JSON) {
        guard message["members"] == nil else { return take(list: message) }
        let (joined, left) = (Self.users(message["joined"]), Self.users(message["left"]))
        let updated = message["updated"]?.array?.count ?? 0
        guard let new = message["pv"]?.int, new > pv else { return }
        if new - pv > joined.count + left.count + updated { mustAskForMembers = true }
        pv = new
        members.formUnion(joined)
        members.subtract(left)
    }

    mutating func askedForMembers() {
        mustAskForMembers = false
    }

    private mutating func take(list message: JSON) {
        pv = message["pv"]?.int ?? pv
        members = Set(Self.users(message["members"]))
        mustAskForMembers = false
    }

    static func users(_ list: JSON?) -> [String] { (list?.array ?? []).compactMap { $0["user"]?.string } }

    /// What may not be sent again any more, as nobody would know the id.
    mutating func outdated(at now: Int64) -> [Unacknowledged] {
        let outdated = unacknowledged.filter { now - ($0.firstSent ?? now) > Self.dedupeWindow }
        if !outdated.isEmpty { unacknowledged.removeAll { now - ($0.firstSent ?? now) > Self.dedupeWindow } }
        return outdated
    }
}
