package import NIOCore
package import RedisClient
package import WireProtocol

/// What Redis keeps for one user beside their sessions: in which private rooms something happened lately, so that a node
/// that was deaf and a client that was away know where to look (G2).
package struct UserStore: Sendable {
    let redis: RedisClient
    let keys: ClusterKeys

    package init(redis: RedisClient, keys: ClusterKeys) {
        self.redis = redis
        self.keys = keys
    }

    /// To be given to the connection over which a message goes into the room, before it: then the room has no message
    /// without the note, and `WAIT` behind the message covers both. Only a Redis that refuses the note and takes the message,
    /// as when it runs out of memory and finds some between the two, breaks that; the failure says so.
    package func noteDirect(_ room: RoomName, of user: UserName) -> EventLoopFuture<Void> {
        redis.evaluate(
            ClusterScripts.userDirect, keys: [.string(keys.userDirects(user))], arguments: [.string(room.string)]
        ).map { _ in }
    }

    /// Only on the event loop.
    package var isConnected: Bool { redis.isConnected }

    /// The private rooms that were noted within `age`, and the clock of Redis in milliseconds since 1970.
    package func directs(of user: UserName, within age: TimeAmount) -> EventLoopFuture<(now: Int64, rooms: [RoomName])>
    {
        directs(of: user, ["within", .integer(age.milliseconds)])
    }

    /// The private rooms that were noted since a moment, in milliseconds of Redis's clock.
    package func directs(of user: UserName, since moment: Int64) -> EventLoopFuture<[RoomName]> {
        directs(of: user, ["since", .integer(moment)]).map(\.rooms)
    }

    private func directs(
        of user: UserName, _ arguments: [RedisArgument]
    ) -> EventLoopFuture<(now: Int64, rooms: [RoomName])> {
        redis.evaluate(
            ClusterScripts.userDirects, keys: [.string(keys.userDirects(user))], arguments: arguments
        ).flatMapThrowing { reply in
            guard let fields = reply.array, let now = fields.first?.int else {
                throw ClusterStateError.unexpectedReply(of: "user_directs")
            }
            return (now, fields.dropFirst().compactMap { $0.string.flatMap { try? RoomName(validating: $0) } })
        }
    }

    /// Tells how many messages a second the user sent through `incarnation`, and answers how many through the others, as far
    /// as they said so within the last three seconds.
    package func exchangeRate(of user: UserName, _ rate: Int, by incarnation: Incarnation) -> EventLoopFuture<Int> {
        redis.evaluate(
            ClusterScripts.userRate, keys: [.string(keys.userRate(user))],
            arguments: [.string(incarnation.description), .integer(Int64(rate))]
        ).flatMapThrowing { reply in
            guard let others = reply.int else { throw ClusterStateError.unexpectedReply(of: "user_rate") }
            return Int(others)
        }
    }

    /// The user's sessions on all nodes, those that may still be resumed included.
    package func sessionCount(of user: UserName) -> EventLoopFuture<Int> {
        redis.command(["HLEN", .string(keys.userSessions(user))]).flatMapThrowing { reply in
            guard let count = reply.int else { throw ClusterStateError.unexpectedReply(of: "HLEN") }
            return Int(count)
        }
    }
}
