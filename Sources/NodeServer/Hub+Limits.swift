import ChatCore
import ClusterState
import NIOCore
import RedisClient
import WireProtocol

/// What a user may have and do across the cluster.
extension Hub {
    /// At most so many users a second are spoken of with the other nodes.
    private static let exchangesAtOnce = 2000

    /// Once a second: one pipelined batch for those who send much.
    func exchangeUserRates(_ guards: NodeGuards) {
        let reports = guards.reportRates()
        guard let incarnation, redis.isConnected else { return }
        for (user, demand) in reports.prefix(Self.exchangesAtOnce) {
            userStore.exchangeRate(of: user, demand, by: incarnation).whenSuccess { others in
                guards.learn(user, others: others)
            }
        }
    }

    /// Sessions that are opened at the same moment do not see each other: the limit holds to within a few.
    func limitSessions(of user: UserName, _ id: SessionID) {
        let most = configuration.limits.sessionsPerUser
        guard most > 0 else { return }
        userStore.sessionCount(of: user).assumeIsolated().whenSuccess { count in
            guard count >= most else { return }
            self.refuse(
                id,
                WireError(
                    .rateLimited, "this user has \(count) sessions, and may have \(most); close some and try again",
                    retryAfterMilliseconds: 10_000))
        }
    }
}
