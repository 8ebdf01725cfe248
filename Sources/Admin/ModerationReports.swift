package import ChatCore
package import ClusterState
package import WireProtocol

/// An order, as it is in force.
package struct OrderReport: Report {
    package let order: ModerationOrder

    package func write(to json: inout JSONWriter) {
        json.beginObject()
        json.members(of: order.key)
        json.member("reason", order.terms.reason)
        json.member("by", order.terms.by)
        json.member("since", order.terms.since)
        json.key("until")
        if let until = order.terms.until { json.value(until) } else { json.null() }
        json.endObject()
    }
}

/// An order that is no more.
package struct LiftReport: Report {
    package let key: ModerationOrder.Key

    package func write(to json: inout JSONWriter) {
        json.beginObject()
        json.members(of: key)
        json.endObject()
    }
}

package struct AuditReport: Report {
    package let entry: AuditEntry
    /// `ban`, `unban`, `drain` and so on.
    package var action: String {
        switch entry.subject {
        case .people(let key, let isLifted): (isLifted ? "un" : "") + key.kind.rawValue
        case .node(_, let order): order.rawValue
        }
    }
    /// `user`, `node` and so on.
    package var target: String {
        switch entry.subject {
        case .people(let key, _): key.sort
        case .node: "node"
        }
    }
    package var name: String {
        switch entry.subject {
        case .people(let key, _): key.name
        case .node(let node, _): node.description
        }
    }
    package var room: RoomName? {
        switch entry.subject {
        case .people(let key, _): key.room
        case .node: nil
        }
    }

    package func write(to json: inout JSONWriter) {
        json.beginObject()
        json.member("at", entry.at)
        json.member("action", action)
        switch entry.subject {
        case .people(let key, _):
            json.members(of: key)
        case .node:
            json.member("kind", NodeOrder.drain.rawValue)
            json.member("target", target)
            json.member("name", name)
            json.key("room")
            json.null()
        }
        json.member("reason", entry.reason)
        json.member("by", entry.by)
        json.key("until")
        if let until = entry.until { json.value(until) } else { json.null() }
        json.endObject()
    }
}

extension JSONWriter {
    fileprivate mutating func members(of key: ModerationOrder.Key) {
        member("kind", key.kind.rawValue)
        member("target", key.sort)
        member("name", key.name)
        self.key("room")
        if let room = key.room { value(room.string) } else { null() }
    }
}
