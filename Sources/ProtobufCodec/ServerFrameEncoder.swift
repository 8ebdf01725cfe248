// `Data` is what generated code has bytes in; FoundationEssentials is what SwiftProtobuf imports, without ICU.
import FoundationEssentials
import SwiftProtobuf
import WireProtocol

/// Makes frames of `martlet.v1.protobuf` out of those of `martlet.v1.json`, which a server has of everything that it says: so
/// both say the same.
package enum ServerFrames {
    /// - Parameter json: one frame.
    /// - Returns: `nil` for what is no frame of a server.
    package static func protobuf(_ json: UnsafeRawBufferPointer) -> [UInt8]? {
        guard let members = JSONMembers(json), let frame = Martlet_V1_ServerFrame(members) else { return nil }
        return try? frame.serializedBytes()
    }
}

extension Martlet_V1_ServerFrame {
    fileprivate init?(_ json: JSONMembers) {
        self.init()
        guard let type = json.string("type") else { return nil }
        // In a message it is the sender's.
        if type != "message", let id = json.string("id") { self.id = id }
        switch type {
        case "message": message = .init(json)
        case "ack": ack = .init(json)
        case "presence": presence = .init(json)
        case "typing": typing = .init(json)
        case "joined": joined = .init(json)
        case "left": left = .init(json)
        case "gap": gap = .init(json)
        case "history": history = .init(json)
        case "error": error = .init(json)
        case "welcome": welcome = .init(json)
        case "reconnect": reconnect = .init(json)
        case "token_expiring": tokenExpiring.expiresInMs = json.integer("expires_in_ms") ?? 0
        case "pong": pong.ts = json.integer("ts") ?? 0
        default: return nil
        }
    }
}

extension Martlet_V1_Message {
    fileprivate init(_ json: JSONMembers) {
        self.init()
        room = json.string("room") ?? ""
        seq = json.integer("seq") ?? 0
        tag = json.string("tag") ?? ""
        from = json.string("from") ?? ""
        if let to = json.string("to") { self.to = to }
        if let text = json.string("text") { payload.text = text }
        if let data = json.text("data") { payload.data = data }
        if let binary = json.base64("binary") { payload.binary = Data(binary) }
        if let id = json.string("id") { self.id = id }
        ts = json.integer("ts") ?? 0
        if let epoch = json.string("epoch") { self.epoch = epoch }
    }
}

extension Martlet_V1_Ack {
    fileprivate init(_ json: JSONMembers) {
        self.init()
        room = json.string("room") ?? ""
        seq = json.integer("seq") ?? 0
        ts = json.integer("ts") ?? 0
        if let tag = json.string("tag") { self.tag = tag }
        if let epoch = json.string("epoch") { self.epoch = epoch }
        duplicate = json.bool("duplicate") ?? false
        status = .init(json.string("status"))
    }
}

extension Martlet_V1_Status {
    fileprivate init(_ name: String?) {
        switch name.flatMap(PresenceStatus.init(rawValue:)) {
        case .online: self = .online
        case .away: self = .away
        case .busy: self = .busy
        case .invisible: self = .invisible
        case nil: self = .unspecified
        }
    }
}

extension Martlet_V1_Member {
    fileprivate init(_ json: JSONMembers) {
        self.init()
        user = json.string("user") ?? ""
        status = .init(json.string("status") ?? PresenceStatus.online.rawValue)
        if let info = json.text("info") { self.info = info }
    }

    fileprivate static func list(_ name: StaticString, of json: JSONMembers) -> [Self] {
        json.objects(name).map { Self($0) }
    }
}

extension Martlet_V1_Presence {
    fileprivate init(_ json: JSONMembers) {
        self.init()
        room = json.string("room") ?? ""
        count = json.integer("count") ?? 0
        pv = json.integer("pv") ?? 0
        if json.value("members") != nil {
            members.members = Martlet_V1_Member.list("members", of: json)
        } else {
            changes.joined = Martlet_V1_Member.list("joined", of: json)
            changes.left = Martlet_V1_Member.list("left", of: json)
            changes.updated = Martlet_V1_Member.list("updated", of: json)
        }
    }
}

extension Martlet_V1_Typing {
    fileprivate init(_ json: JSONMembers) {
        self.init()
        room = json.string("room") ?? ""
        from = json.string("from") ?? ""
        typing = json.bool("typing") ?? false
    }
}

extension Martlet_V1_Joined {
    fileprivate init(_ json: JSONMembers) {
        self.init()
        room = json.string("room") ?? ""
        epoch = json.string("epoch") ?? ""
        seq = json.integer("seq") ?? 0
        if let tag = json.string("tag") { self.tag = tag }
        if let recovered = json.bool("recovered") { self.recovered = recovered }
        if let pv = json.integer("pv") { self.pv = pv }
        if let count = json.integer("count") { self.count = count }
        members = Martlet_V1_Member.list("members", of: json)
    }
}

extension Martlet_V1_Left {
    fileprivate init(_ json: JSONMembers) {
        self.init()
        room = json.string("room") ?? ""
        if let reason = json.string("reason") { self.reason = reason }
    }
}

extension Martlet_V1_Gap {
    fileprivate init(_ json: JSONMembers) {
        self.init()
        room = json.string("room") ?? ""
        epoch = json.string("epoch") ?? ""
        from = json.integer("from") ?? 0
        to = json.integer("to") ?? 0
    }
}

extension Martlet_V1_History {
    fileprivate init(_ json: JSONMembers) {
        self.init()
        room = json.string("room") ?? ""
        if let epoch = json.string("epoch") { self.epoch = epoch }
        messages = json.objects("messages").map { Martlet_V1_Message($0) }
        more = json.bool("more") ?? false
    }
}

extension Martlet_V1_Error {
    fileprivate init(_ json: JSONMembers) {
        self.init()
        code = Int32(truncatingIfNeeded: json.integer("code") ?? 0)
        reason = json.string("reason") ?? ""
        message = json.string("message") ?? ""
        if let milliseconds = json.integer("retry_ms") { retryMs = milliseconds }
        if let room = json.string("room") { self.room = room }
    }
}

extension Martlet_V1_Welcome {
    fileprivate init(_ json: JSONMembers) {
        self.init()
        session = json.string("session") ?? ""
        user = json.string("user") ?? ""
        node = json.string("node") ?? ""
        resumed = json.bool("resumed") ?? false
        if let secret = json.string("secret") { self.secret = secret }
        if let milliseconds = json.integer("grace_ms") { graceMs = milliseconds }
        if let ts = json.integer("ts") { self.ts = ts }
        `protocol` = json.string("protocol") ?? ""
        heartbeatMs = json.integer("heartbeat_ms") ?? 0
        guard let said = json.object("limits") else { return }
        limits.messageBytes = said.integer("message_bytes") ?? 0
        limits.messagesPerSecond = said.integer("messages_per_second") ?? 0
        limits.rooms = said.integer("rooms") ?? 0
    }
}

extension Martlet_V1_Reconnect {
    fileprivate init(_ json: JSONMembers) {
        self.init()
        delayMs = json.integer("delay_ms") ?? 0
        reason = json.string("reason") ?? ""
    }
}
