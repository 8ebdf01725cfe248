import ClusterState
import TestSupport

extension Scenario {
    /// Redis dies, stands still, forgets.
    static func redis(_ form: Form) -> [Scenario] {
        [
            Scenario(
                name: "Redis is killed and has all of its log", options: options(form, isDurable: true),
                limits: Limits(silence: 15_000)
            ) { run in
                try await run.outage {
                    await run.cluster.redis.kill()
                    try await run.wait(form == .brief ? 1500 : 5000)
                    try await run.cluster.redis.startAgain()
                }
                try await run.wait(2000)
            },
            lostSecond(form),
            Scenario(
                name: "Redis stands still for 8 s", options: options(form), limits: Limits(silence: 15_000)
            ) { run in
                try await run.outage {
                    run.cluster.redis.pause()
                    try await run.wait(8000)
                    run.cluster.redis.resume()
                }
                try await run.wait(2000)
            },
            laggingReplica(form, acksWait: false),
            laggingReplica(form, acksWait: true),
            expiry(form),
            Scenario(
                name: "FLUSHALL", options: options(form), limits: Limits(silence: 15_000, gaps: true, forgotten: 20)
            ) { run in
                try await run.cluster.redis.command("FLUSHALL")
                try await run.wait(form == .brief ? 6000 : 20_000)
                if run.gaps == 0 { run.note(.unsaid, "Redis forgot everything, and no gap says so") }
            },
        ]
    }

    /// With `appendfsync everysec` a machine that dies takes the last second along. A killed process alone does not: its
    /// writes are in the kernel. So the file of up to a second before the kill comes back.
    private static func lostSecond(_ form: Form) -> Scenario {
        Scenario(
            name: "Redis is killed and has lost the last second", options: options(form, isDurable: true),
            sync: "everysec", limits: Limits(silence: 15_000, gaps: true, forgotten: 30)
        ) { run in
            try await run.outage {
                try run.cluster.redis.keep()
                let kept = run.ends
                try await run.wait(run.number(300...900))
                await run.cluster.redis.kill()
                let lost = run.ends.reduce(into: 0) { $0 += $1.value - (kept[$1.key] ?? 0) }
                try run.cluster.redis.restore()
                try await run.wait(500)
                try await run.cluster.redis.startAgain()
                for (room, end) in kept {
                    let key = run.cluster.key("{r:\(room)}:meta")
                    let stored = try await run.cluster.redis.command("HGET", key, "seq").int ?? 0
                    if stored < end { run.note(.missing, "\(room) had \(end) a second before, now \(stored)") }
                }
                if lost == 0 { run.note(.answer, "nothing was said in the second that was lost") }
            }
            try await run.wait(4000)
            if run.gaps == 0 { run.note(.unsaid, "a second was lost, and no gap says so") }
        }
    }

    /// A replica that lags behind takes over: what it never got is said, and nothing else is lost. With acks that wait for
    /// the replica nothing acknowledged is lost at all.
    private static func laggingReplica(_ form: Form, acksWait: Bool) -> Scenario {
        Scenario(
            name: "a replica that lags is promoted" + (acksWait ? ", and acks waited for it" : ""),
            options: options(form, proxies: [.redis], more: acksWait ? ["MARTLET_ACK_REPLICAS": "1"] : [:]),
            limits: Limits(silence: 15_000, gaps: true, forgotten: acksWait ? 0 : 60)
        ) { run in
            // Who takes over knows the user that the nodes log in as.
            let replica = try await ClusterRedis.start(prefix: run.cluster.prefix)
            let heir = try await ClusterRedis.start(prefix: run.cluster.prefix)
            let link = try await FaultProxy.start(to: run.cluster.redis.port)
            var lag = Fault()
            lag.held = [.toClient]
            func lagBehind() async throws {
                await link.set(lag)
                try await run.wait(run.number(500...1500))
            }
            do {
                try await run.outage { try await replica.follow(link.port) }
                try await run.wait(500)
                if !acksWait { try await lagBehind() }
                try await run.outage {
                    // With acks that wait, nothing is acknowledged from here on until another replica follows.
                    if acksWait { try await lagBehind() }
                    await run.cluster.redis.kill()
                    try await replica.command("REPLICAOF", "NO", "ONE")
                    // Also those acks that were on their way.
                    try await run.wait(300)
                    let lost = try await run.acknowledged(beyond: replica)
                    if acksWait, lost > 0 { run.note(.missing, "\(lost) acknowledged messages are not there") }
                    if !acksWait, lost == 0 { run.note(.answer, "nothing was acknowledged in the lag") }
                    let proxies = run.cluster.proxies
                    for proxy in proxies.redis { await proxy.redirect(to: replica.port) }
                    await proxies.routersToRedis?.redirect(to: replica.port)
                    if acksWait { try await heir.follow(replica.port) }
                }
                try await run.wait(5000)
                // With acks that wait it may be that nobody had anything of what is lost.
                if !acksWait, run.gaps == 0 {
                    run.note(.unsaid, "what the replica never got is lost, and no gap says so")
                }
            } catch {
                await link.stop()
                await replica.stop()
                await heir.stop()
                throw error
            }
            await link.stop()
            run.replaceRedis(by: replica, heir)
        }
    }

    /// The last one leaves, the log expires, so would what had its life from there; everybody comes back: nothing was missed, and numbers go on.
    private static func expiry(_ form: Form) -> Scenario {
        Scenario(
            name: "room keys expire between visits",
            options: options(
                form, more: ["MARTLET_HISTORY_SECONDS": "2", "MARTLET_RESUME_GRACE_SECONDS": "0"]),
            limits: Limits(silence: 20_000)
        ) { run in
            for visit in 1...(form == .brief ? 2 : 4) {
                await run.quiet()
                for client in run.clients { client.stayAway(true) }
                for room in run.rooms {
                    _ = try await poll(within: .seconds(30), "the log of \(room) to expire") {
                        let key = run.cluster.key("{r:\(room)}:log")
                        return try await run.cluster.redis.command("EXISTS", key).int == 0 ? true : nil
                    }
                    _ = try await poll(within: .seconds(30), "the history's age to pass without anybody in \(room)") {
                        let left = try await run.cluster.redis.command("PTTL", run.cluster.key("{r:\(room)}:meta")).int
                        return left.map { $0 != -1 && $0 <= HistoryLimits().afterlife } == true ? true : nil
                    }
                }
                let before = run.ends
                for client in run.clients { client.stayAway(false) }
                try await run.allJoined()
                if run.ends != before { run.note(.unsaid, "visit \(visit): \(before) became \(run.ends)") }
                run.speak()
                try await run.wait(1500)
            }
        }
    }
}
