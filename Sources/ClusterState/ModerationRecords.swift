package import ChatCore
import WireProtocol

/// Orders as the hash `P:{orders}` and the control channel hold them (docs/redis.md): a field `KIND SORT ROOM NAME`, where
/// ROOM is `*` for everywhere, and a value `SINCE UNTIL`, then BY and REASON, each behind a line end.
extension ModerationOrder.Key {
    package var field: String { "\(kind.rawValue) \(sort) \(room?.string ?? "*") \(name)" }

    /// `nil` for what this version does not know.
    package init?(field: String) {
        let words = field.split(separator: " ", maxSplits: 3, omittingEmptySubsequences: false)
        guard words.count == 4, let kind = ModerationOrder.Kind(rawValue: String(words[0])) else { return nil }
        let target: ModerationOrder.Target? =
            switch words[1] {
            case "user": (try? UserName(validating: String(words[3]))).map { .user($0) }
            case "session": SessionID(words[3]).map { .session($0) }
            case "token": ModerationOrder.Target.token(named: String(words[3]))
            case "address": AddressRange(words[3]).map { .address($0) }
            default: nil
            }
        var room: RoomName?
        if words[2] != "*" {
            guard let named = try? RoomName(validating: String(words[2])) else { return nil }
            room = named
        }
        guard let target else { return nil }
        self.init(kind, target, in: room)
    }

    /// `user`, `session`, `token` or `address`.
    package var sort: String {
        switch target {
        case .user: "user"
        case .session: "session"
        case .token: "token"
        case .address: "address"
        }
    }

    /// The user, session, token or range that is meant.
    package var name: String {
        switch target {
        case .user(let user): user.string
        case .session(let session): session.string
        case .token(let id): id
        case .address(let range): range.description
        }
    }
}

extension ModerationOrder.Target {
    /// By its `jti`: 1–256 bytes without control characters; `nil` for anything else, which cannot be ordered about.
    package static func token(named id: String) -> Self? {
        (1...256).contains(id.utf8.count) && !id.hasControlCharacters ? .token(id) : nil
    }
}

extension ModerationOrder.Terms {
    package init?(value: some StringProtocol) {
        let lines = value.split(separator: "\n", maxSplits: 2, omittingEmptySubsequences: false)
        guard lines.count == 3 else { return nil }
        let times = lines[0].split(separator: " ", omittingEmptySubsequences: false)
        guard times.count == 2, let since = Int64(times[0]), let until = Int64(times[1]) else { return nil }
        self.init(
            reason: String(lines[2]), by: String(lines[1]), since: since, until: until == 0 ? nil : until)
    }
}

/// One change of the orders on the control channel: `order PREVIOUS NEXT`, then the field and the value, each behind a line
/// end; without a value the order was lifted.
package struct ModerationChange: Sendable, Hashable {
    /// The version that it makes of which.
    package let previous: String
    package let next: String
    package let key: ModerationOrder.Key
    package let terms: ModerationOrder.Terms?

    package static let verb = "order "

    /// Whether it is such a message at all. One that then does not parse is of a newer version: read the orders instead.
    package static func isOne(_ payload: UnsafeRawBufferPointer) -> Bool { payload.starts(with: verb.utf8) }

    package init?(parsing payload: UnsafeRawBufferPointer) {
        guard Self.isOne(payload), payload.count <= 4096, let text = String(validating: payload, as: UTF8.self)
        else { return nil }
        let lines = text.split(separator: "\n", maxSplits: 2, omittingEmptySubsequences: false)
        guard lines.count == 3, let key = ModerationOrder.Key(field: String(lines[1])) else { return nil }
        let words = lines[0].split(separator: " ", omittingEmptySubsequences: false)
        guard words.count == 3, !words[1].isEmpty, !words[2].isEmpty else { return nil }
        var terms: ModerationOrder.Terms?
        if !lines[2].isEmpty {
            guard let given = ModerationOrder.Terms(value: lines[2]) else { return nil }
            terms = given
        }
        (previous, next, self.key, self.terms) = (String(words[1]), String(words[2]), key, terms)
    }

    /// Whether the orders of that version cannot hold it yet, as far as versions tell.
    package func isNewer(than version: String) -> Bool {
        guard let next = Self.moment(next), let known = Self.moment(version) else { return true }
        return next > known
    }

    /// A version is the time of its change, and its number.
    private static func moment(_ version: String) -> (Int64, Int64)? {
        let parts = version.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 2, let time = Int64(parts[0]), let number = Int64(parts[1]) else { return nil }
        return (time, number)
    }
}

/// A line of the audit.
package struct AuditEntry: Sendable, Hashable {
    package enum Subject: Sendable, Hashable {
        case people(ModerationOrder.Key, isLifted: Bool)
        case node(Incarnation, NodeOrder)
    }

    package let at: Int64
    package let subject: Subject
    package let by: String
    package let reason: String
    /// `nil`: until it is lifted.
    package let until: Int64?
}

/// What an operator may order a node.
package enum NodeOrder: String, Sendable {
    case drain
    case undrain
}
