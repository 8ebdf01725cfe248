/// What a server said. Fields that a frame of its type must have are not optional: without them it is no such frame.
enum ServerFrame: Equatable {
    case welcome(Welcome)
    case joined(Joined)
    /// With an `id` the answer to a leave, without one the server's own doing.
    case left(room: String, id: String?, reason: String?)
    case message(ChatMessage)
    case ack(Ack)
    case gap(room: String, epoch: String?, from: Int64?, to: Int64)
    case members(room: String, Roster)
    case membersChanged(room: String, RosterChange)
    case typing(room: String, user: String, isTyping: Bool)
    case history(id: String?, History)
    case error(Refusal)
    /// The node will close the connection.
    case reconnect
    case tokenExpiring(milliseconds: Int64)
    case pong
    /// Of a later protocol, or answers nothing that this client asks for.
    case other

    struct Welcome: Equatable {
        var session: String
        var user: String
        var node: String
        var limits = Limits()
        /// With it the client may come back to this session.
        var secret: String?
        /// It is the session of before, with its rooms.
        var isResumed = false
        /// When a new session began, by the server's clock in milliseconds.
        var beganAt: Int64?
    }

    struct Ack: Equatable {
        var id: String
        var room: String
        var epoch: String?
        var seq: Int64
        var timestamp: Int64
        var tag: String?
    }

    /// What the server did not say is `nil`.
    struct Limits: Equatable {
        /// Of one frame.
        var messageBytes: Int64?
        /// 0 is no limit.
        var messagesPerSecond: Int64?
    }

    struct Joined: Equatable {
        var room: String
        var epoch: String
        var seq: Int64
        var tag: String?
        var recovered: Bool?
        var roster: Roster
    }

    struct Roster: Equatable {
        var members: [Member]
        var count: Int
        var pv: Int64
    }

    struct RosterChange: Equatable {
        var joined: [Member] = []
        var left: [String] = []
        var updated: [Member] = []
        var count: Int
        var pv: Int64
    }

    struct History: Equatable {
        var room: String
        var epoch: String?
        var messages: [ChatMessage]
        var hasMore: Bool
    }

    struct Refusal: Equatable {
        var id: String?
        var room: String?
        var number: Int
        var reason: String
        var message: String
        var retryAfter: Int64?
    }
}

extension ServerFrame {
    /// `nil` for text that is not an object with a type, or lacks what its type must have.
    init?(decoding bytes: [UInt8]) {
        guard let object = JSONObject(bytes), let type = object.string("type") else { return nil }
        guard let frame = Self.decode(type, object, room: object.string("room")) else { return nil }
        self = frame
    }

    /// An hour, in milliseconds.
    private static let longestDelay: Int64 = 3_600_000

    private static func decode(_ type: String, _ object: JSONObject, room: String?) -> ServerFrame? {
        switch type {
        case "welcome":
            guard let session = object.string("session"), let user = object.string("user") else { return nil }
            let limits = object.object("limits")
            return .welcome(
                Welcome(
                    session: session, user: user, node: object.string("node") ?? "",
                    limits: Limits(
                        messageBytes: limits?.integer("message_bytes"),
                        messagesPerSecond: limits?.integer("messages_per_second")),
                    secret: object.string("secret"), isResumed: object.bool("resumed") ?? false,
                    beganAt: object.integer("ts")))
        case "joined":
            guard let room, let epoch = object.string("epoch"), let seq = object.integer("seq") else { return nil }
            return .joined(
                Joined(
                    room: room, epoch: epoch, seq: seq, tag: object.string("tag"), recovered: object.bool("recovered"),
                    roster: roster(object)))
        case "left":
            guard let room else { return nil }
            return .left(room: room, id: object.string("id"), reason: object.string("reason"))
        case "message":
            guard let room, let message = message(object, room: room) else { return nil }
            return .message(message)
        case "ack":
            guard let id = object.string("id"), let room, let seq = object.integer("seq") else { return .other }
            return .ack(
                Ack(
                    id: id, room: room, epoch: object.string("epoch"), seq: seq, timestamp: object.integer("ts") ?? 0,
                    tag: object.string("tag")))
        case "gap":
            guard let room, let to = object.integer("to") else { return nil }
            return .gap(room: room, epoch: object.string("epoch"), from: object.integer("from"), to: to)
        case "presence":
            guard let room else { return nil }
            return presence(object, room: room)
        case "typing":
            guard let room, let user = object.string("from") else { return nil }
            return .typing(room: room, user: user, isTyping: object.bool("typing") ?? true)
        case "history":
            guard let room, let messages = object.objects("messages") else { return nil }
            return .history(
                id: object.string("id"),
                History(
                    room: room, epoch: object.string("epoch"),
                    messages: messages.compactMap { message($0, room: room) },
                    hasMore: object.bool("more") ?? false))
        case "error":
            guard let number = object.integer("code") else { return nil }
            let retryAfter = object.integer("retry_ms")
            guard retryAfter ?? 0 <= longestDelay else { return nil }
            let reason = object.string("reason") ?? ""
            return .error(
                Refusal(
                    id: object.string("id"), room: room, number: Int(number), reason: reason,
                    message: object.string("message") ?? reason, retryAfter: retryAfter))
        case "reconnect": return .reconnect
        case "token_expiring":
            return object.integer("expires_in_ms").map { .tokenExpiring(milliseconds: max(0, $0)) } ?? .other
        case "pong": return .pong
        default: return .other
        }
    }

    private static func presence(_ object: JSONObject, room: String) -> ServerFrame {
        if object.objects("members") != nil { return .members(room: room, roster(object)) }
        return .membersChanged(
            room: room,
            RosterChange(
                joined: members(object, "joined"), left: members(object, "left").map(\.user),
                updated: members(object, "updated"), count: Int(object.integer("count") ?? 0),
                pv: object.integer("pv") ?? 0))
    }

    private static func roster(_ object: JSONObject) -> Roster {
        let members = members(object, "members")
        return Roster(
            members: members, count: object.integer("count").map { Int($0) } ?? members.count,
            pv: object.integer("pv") ?? 0)
    }

    private static func members(_ object: JSONObject, _ name: String) -> [Member] {
        (object.objects(name) ?? []).compactMap { member in
            member.string("user").map {
                Member(user: $0, status: member.string("status") ?? "online", info: member.raw("info"))
            }
        }
    }

    private static func message(_ object: JSONObject, room: String) -> ChatMessage? {
        guard let seq = object.integer("seq"), let from = object.string("from") else { return nil }
        return ChatMessage(
            room: room, seq: seq, from: from, to: object.string("to"), text: object.string("text"),
            data: object.raw("data"), binary: object.bytes("binary"), timestamp: object.integer("ts") ?? 0,
            isOwn: false, id: object.string("id"),
            tag: object.string("tag"), epoch: object.string("epoch"))
    }
}
