package import ClusterState
import NIOCore
package import WireProtocol

/// An answer with its JSON, whose fields stay as they are (docs/operations.md): new ones may come, none changes or goes.
/// Times are milliseconds since 1970; `node` is a name, `incarnation` the name with its number.
package protocol Report: Sendable {
    func write(to json: inout JSONWriter)
}

extension Array: Report where Element: Report {
    package func write(to json: inout JSONWriter) {
        json.beginArray()
        for element in self { element.write(to: &json) }
        json.endArray()
    }
}

package struct NodeReport: Report {
    package let incarnation: Incarnation
    package let address: String
    package let state: NodeRecord.State
    package let sessions: Int
    package let rooms: Int
    package let leaseMilliseconds: Int64
    package let version: String
    package let startedAt: Int64

    package func write(to json: inout JSONWriter) {
        json.beginObject()
        json.member("node", incarnation.name)
        json.member("incarnation", incarnation.description)
        json.member("address", address)
        json.member("state", state.rawValue)
        json.member("sessions", sessions)
        json.member("rooms", rooms)
        json.member("lease_ms", leaseMilliseconds)
        json.member("version", version)
        json.member("started_at", startedAt)
        json.endObject()
    }
}

package struct SessionReport: Report {
    package let session: SessionID
    package let user: UserName
    package let incarnation: Incarnation

    package func write(to json: inout JSONWriter) {
        json.beginObject()
        json.member("session", session.string)
        json.member("user", user.string)
        json.member("node", incarnation.name)
        json.member("incarnation", incarnation.description)
        json.endObject()
    }
}

package struct UserReport: Report {
    package struct Place: Sendable {
        package let room: RoomName
        package let status: PresenceStatus
        package let joinedAt: Int64
    }

    package struct Session: Sendable {
        package let session: SessionID
        package let incarnation: Incarnation
        package let rooms: [Place]
    }

    package let user: UserName
    package let sessions: [Session]

    package func write(to json: inout JSONWriter) {
        json.beginObject()
        json.member("user", user.string)
        json.key("sessions")
        json.beginArray()
        for session in sessions {
            json.beginObject()
            json.member("session", session.session.string)
            json.member("node", session.incarnation.name)
            json.member("incarnation", session.incarnation.description)
            json.key("rooms")
            json.beginArray()
            for place in session.rooms {
                json.beginObject()
                json.member("room", place.room.string)
                json.member("status", place.status.rawValue)
                json.member("joined_at", place.joinedAt)
                json.endObject()
            }
            json.endArray()
            json.endObject()
        }
        json.endArray()
        json.endObject()
    }
}

package struct RoomReport: Report {
    package let room: RoomName
    /// Visible ones.
    package let users: Int
    package let sessions: Int
    /// Messages in the log.
    package let stored: Int
    package let seq: Int64
    package let epoch: String
    package let lastMessageAt: Int64?

    package func write(to json: inout JSONWriter) {
        json.beginObject()
        json.member("room", room.string)
        json.member("users", users)
        json.member("sessions", sessions)
        json.member("seq", seq)
        json.member("stored", stored)
        json.member("epoch", epoch)
        json.key("last_message_at")
        if let lastMessageAt { json.value(lastMessageAt) } else { json.null() }
        json.endObject()
    }
}

package struct PresenceReport: Report {
    package struct User: Sendable {
        package let user: UserName
        /// Longest here first.
        package let sessions: [Membership]
        /// The most present of the sessions'.
        package var status: PresenceStatus {
            PresenceStatus.allCases.first { status in sessions.contains { $0.status == status } } ?? .invisible
        }
    }

    package let room: RoomName
    /// Visible users, as clients are told it.
    package let count: Int
    package let users: [User]

    package func write(to json: inout JSONWriter) {
        json.beginObject()
        json.member("room", room.string)
        json.member("count", count)
        json.key("users")
        json.beginArray()
        for user in users {
            json.beginObject()
            json.member("user", user.user.string)
            json.member("status", user.status.rawValue)
            json.key("sessions")
            json.beginArray()
            for session in user.sessions {
                json.beginObject()
                json.member("session", session.session.string)
                json.member("node", session.incarnation.name)
                json.member("incarnation", session.incarnation.description)
                json.member("status", session.status.rawValue)
                json.member("joined_at", session.joinedAt)
                json.endObject()
            }
            json.endArray()
            json.endObject()
        }
        json.endArray()
        json.endObject()
    }
}

package struct HistoryReport: Report {
    package let room: RoomName
    package let epoch: String
    /// Of the room's last message, whether or not it is among `messages`.
    package let seq: Int64
    package let messages: [StoredMessage]

    package func write(to json: inout JSONWriter) {
        json.beginObject()
        json.member("room", room.string)
        json.member("epoch", epoch)
        json.member("seq", seq)
        json.key("messages")
        json.beginArray()
        for message in messages {
            json.raw(
                MessageText.element(
                    seq: message.seq, tag: message.tag, body: message.body.readableBytesView, ts: message.ts,
                    rawID: ""))
        }
        json.endArray()
        json.endObject()
    }
}

package struct PublishReport: Report {
    package let room: RoomName
    package let seq: Int64
    package let ts: Int64
    package let epoch: String

    package func write(to json: inout JSONWriter) {
        json.beginObject()
        json.member("room", room.string)
        json.member("seq", seq)
        json.member("ts", ts)
        json.member("epoch", epoch)
        json.endObject()
    }
}

package struct KickReport: Report {
    package let user: UserName
    package let room: RoomName?
    package let sessions: [SessionID]
    package let remaining: [SessionID]

    package func write(to json: inout JSONWriter) {
        json.beginObject()
        json.member("user", user.string)
        json.key("room")
        if let room { json.value(room.string) } else { json.null() }
        for (key, list) in [("sessions", sessions), ("remaining", remaining)] {
            json.key(key)
            json.beginArray()
            for session in list { json.value(session.string) }
            json.endArray()
        }
        json.endObject()
    }
}
