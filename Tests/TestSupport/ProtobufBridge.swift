import Foundation
import ProtobufCodec
import SwiftProtobuf

/// Puts what tests say in JSON into frames of `martlet.v1.protobuf`, and what a server says in those back into JSON, with the
/// generated code alone: nothing here knows how Martlet does it.
package enum ProtobufBridge {
    package struct NoFrame: Error, CustomStringConvertible {
        package let description: String
    }

    // MARK: What a client says

    package static func encode(_ json: JSON) throws -> [UInt8] {
        var frame = Martlet_V1_ClientFrame()
        if let id = json["id"]?.string { frame.id = id }
        let room = json["room"]?.string ?? ""
        switch json["type"]?.string {
        case "auth": frame.auth = try auth(json)
        case "join": frame.join.rooms = try (json["rooms"]?.array ?? [json]).map(joinRoom)
        case "leave": frame.leave.room = room
        case "message":
            frame.message.room = room
            frame.message.payload = try payload(json)
        case "direct":
            frame.direct.to = json["to"]?.string ?? ""
            frame.direct.payload = try payload(json)
        case "typing":
            frame.typing.room = room
            if let typing = json["typing"]?.bool { frame.typing.typing = typing }
        case "presence": frame.presence.room = room
        case "history":
            frame.history.room = room
            if let before = json["before"]?.int { frame.history.before = before }
            if let after = json["after"]?.int { frame.history.after = after }
            if let limit = json["limit"]?.int { frame.history.limit = Int32(limit) }
        case "status": frame.status.status = try status(json["status"])
        case "ping": frame.ping = .init()
        default: throw NoFrame(description: "no client says \(json.text)")
        }
        return try frame.serializedBytes()
    }

    private static func payload(_ json: JSON) throws -> Martlet_V1_Payload {
        var payload = Martlet_V1_Payload()
        if let text = json["text"]?.string { payload.text = text }
        if let data = json["data"] { payload.data = data.text }
        if let binary = json["binary"]?.string {
            guard let bytes = Data(base64Encoded: binary) else { throw NoFrame(description: "no base64: \(binary)") }
            payload.binary = bytes
        }
        return payload
    }

    private static func auth(_ json: JSON) throws -> Martlet_V1_Auth {
        var auth = Martlet_V1_Auth()
        if let user = json["user"]?.string { auth.user = user }
        if let token = json["token"]?.string { auth.token = token }
        if let client = json["client"]?.string { auth.client = client }
        if let info = json["info"] { auth.info = info.text }
        auth.status = try status(json["status"])
        if let resume = json["resume"] {
            auth.resume.session = resume["session"]?.string ?? ""
            auth.resume.secret = resume["secret"]?.string ?? ""
        }
        auth.rooms = try (json["rooms"]?.array ?? []).map(joinRoom)
        if let directs = json["directs"] {
            auth.directs.since = directs["since"]?.int ?? 0
            auth.directs.rooms = try (directs["rooms"]?.array ?? []).map(joinRoom)
        }
        return auth
    }

    private static func joinRoom(_ json: JSON) throws -> Martlet_V1_JoinRoom {
        var join = Martlet_V1_JoinRoom()
        join.room = json["room"]?.string ?? ""
        join.echo = json["echo"]?.bool ?? false
        if let since = json["since"] {
            join.since.epoch = since["epoch"]?.string ?? ""
            join.since.seq = since["seq"]?.int ?? 0
            if let tag = since["tag"]?.string { join.since.tag = tag }
        }
        return join
    }

    private static func status(_ json: JSON?) throws -> Martlet_V1_Status {
        switch json?.string {
        case nil: .unspecified
        case "online": .online
        case "away": .away
        case "busy": .busy
        case "invisible": .invisible
        default: throw NoFrame(description: "no status: \(json?.text ?? "")")
        }
    }

    // MARK: What a server says

    package static func decode(_ bytes: [UInt8]) throws -> JSON {
        let frame = try Martlet_V1_ServerFrame(serializedBytes: bytes)
        guard frame.unknownFields.data.isEmpty, let said = frame.frame else {
            throw NoFrame(description: "no server says \(bytes)")
        }
        var members = try object(said)
        if frame.hasID { members["id"] = .string(frame.id) }
        return .object(members)
    }

    private static func object(_ said: Martlet_V1_ServerFrame.OneOf_Frame) throws -> [String: JSON] {
        switch said {
        case .message(let message): return try object(message).merging(["type": "message"]) { $1 }
        case .ack(let ack):
            guard ack.room != "" else { return ["type": "ack", "status": text(of: ack.status) ?? .null] }
            return compact([
                "type": "ack", "room": .string(ack.room), "seq": .int(ack.seq), "ts": .int(ack.ts),
                "tag": ack.hasTag ? .string(ack.tag) : none, "epoch": ack.hasEpoch ? .string(ack.epoch) : none,
                "duplicate": ack.duplicate ? true : none,
            ])
        case .typing(let typing):
            return [
                "type": "typing", "room": .string(typing.room), "from": .string(typing.from),
                "typing": .bool(typing.typing),
            ]
        case .presence(let presence): return try object(presence)
        case .joined(let joined):
            return compact([
                "type": "joined", "room": .string(joined.room), "epoch": .string(joined.epoch),
                "seq": .int(joined.seq), "tag": joined.hasTag ? .string(joined.tag) : none,
                "recovered": joined.hasRecovered ? .bool(joined.recovered) : none,
                "pv": joined.hasPv ? .int(joined.pv) : none, "count": joined.hasCount ? .int(joined.count) : none,
                "members": joined.hasPv ? try list(joined.members) : none,
            ])
        case .left(let left):
            return compact([
                "type": "left", "room": .string(left.room), "reason": left.hasReason ? .string(left.reason) : none,
            ])
        case .gap(let gap):
            return [
                "type": "gap", "room": .string(gap.room), "epoch": .string(gap.epoch), "from": .int(gap.from),
                "to": .int(gap.to),
            ]
        case .history(let history):
            return compact([
                "type": "history", "room": .string(history.room),
                "epoch": history.hasEpoch ? .string(history.epoch) : none,
                "messages": .array(try history.messages.map { .object(try object($0)) }), "more": .bool(history.more),
            ])
        case .error(let error):
            return compact([
                "type": "error", "code": .int(Int64(error.code)), "reason": .string(error.reason),
                "message": .string(error.message), "retry_ms": error.hasRetryMs ? .int(error.retryMs) : none,
                "room": error.hasRoom ? .string(error.room) : none,
            ])
        case .welcome(let welcome): return object(welcome)
        case .reconnect(let reconnect):
            return ["type": "reconnect", "delay_ms": .int(reconnect.delayMs), "reason": .string(reconnect.reason)]
        case .tokenExpiring(let notice):
            return ["type": "token_expiring", "expires_in_ms": .int(notice.expiresInMs)]
        case .pong(let pong): return ["type": "pong", "ts": .int(pong.ts)]
        }
    }

    private static func object(_ message: Martlet_V1_Message) throws -> [String: JSON] {
        let said = message.payload
        return compact([
            "room": message.room == "" ? none : .string(message.room), "seq": .int(message.seq),
            "tag": .string(message.tag), "from": .string(message.from),
            "to": message.hasTo ? .string(message.to) : none,
            "text": said.hasText ? .string(said.text) : none,
            "data": said.hasData ? try JSON(parsing: said.data) : none,
            "binary": said.hasBinary ? .string(said.binary.base64EncodedString()) : none,
            "id": message.hasID ? .string(message.id) : none, "ts": .int(message.ts),
            "epoch": message.hasEpoch ? .string(message.epoch) : none,
        ])
    }

    private static func object(_ presence: Martlet_V1_Presence) throws -> [String: JSON] {
        var members: [String: JSON] = [
            "type": "presence", "room": .string(presence.room), "count": .int(presence.count), "pv": .int(presence.pv),
        ]
        switch presence.what {
        case .members(let list): members["members"] = try self.list(list.members)
        case .changes(let changes):
            members["joined"] = try list(changes.joined)
            members["left"] = try list(changes.left)
            if !changes.updated.isEmpty { members["updated"] = try list(changes.updated) }
        case nil: throw NoFrame(description: "presence without anything")
        }
        return members
    }

    private static func object(_ welcome: Martlet_V1_Welcome) -> [String: JSON] {
        compact([
            "type": "welcome", "session": .string(welcome.session), "user": .string(welcome.user),
            "node": .string(welcome.node), "resumed": welcome.resumed ? true : none,
            "secret": welcome.hasSecret ? .string(welcome.secret) : none,
            "grace_ms": welcome.hasGraceMs ? .int(welcome.graceMs) : none,
            "ts": welcome.hasTs ? .int(welcome.ts) : none,
            "protocol": .string(welcome.protocol), "heartbeat_ms": .int(welcome.heartbeatMs),
            "limits": [
                "message_bytes": .int(welcome.limits.messageBytes),
                "messages_per_second": .int(welcome.limits.messagesPerSecond), "rooms": .int(welcome.limits.rooms),
            ],
        ])
    }

    private static func list(_ members: [Martlet_V1_Member]) throws -> JSON {
        .array(
            try members.map { member in
                .object(
                    compact([
                        "user": .string(member.user),
                        "status": member.status == .online ? none : text(of: member.status),
                        "info": member.hasInfo ? try JSON(parsing: member.info) : none,
                    ]))
            })
    }

    private static func text(of status: Martlet_V1_Status) -> JSON? {
        switch status {
        case .online: "online"
        case .away: "away"
        case .busy: "busy"
        case .invisible: "invisible"
        case .unspecified, .UNRECOGNIZED: nil
        }
    }

    /// `nil` alone would be JSON's null.
    private static let none: JSON? = nil

    private static func compact(_ members: [String: JSON?]) -> [String: JSON] {
        members.compactMapValues { $0 }
    }
}
