import ChatCore
import Foundation
import Synchronization
import TestSupport

/// One scenario on its way: a cluster, its clients under load, what was harmed when.
final class ChaosRun: Sendable {
    struct Load: Sendable {
        var rooms = 2
        var clients = 6
        /// Of each room's clients, from the first on.
        var publishers = Int.max
        /// Publishers go to the routers themselves, past the proxies in front of them.
        var publishersAreSafe = false
        /// Milliseconds between two messages of one client.
        var interval: Int64 = 300
        /// Of each room's clients, from the last on: so many are slow (``Cluster/ProxyPlace/nodes``).
        var slow = 0
        var padding = 0
        var patience: Int64 = 4000

        var all: Int { rooms * clients }
    }

    let cluster: Cluster
    let recorder = Recorder()
    let clients: [ChaosClient]
    let rooms: [String]
    private let random: Mutex<FastRandom>
    private let circumstances = Mutex(Circumstances())
    private let tasks = Mutex<[Task<Void, Never>]>([])
    private let findings = Mutex<[Verdict.Problem]>([])
    private let successors = Mutex<[ClusterRedis]>([])
    private let load: Load

    init(_ cluster: Cluster, _ load: Load, seed: UInt64) {
        var random = FastRandom(seed: seed)
        let proxied = cluster.proxies.routers.map(\.port)
        let direct = cluster.routers.map(\.port)
        let ports = proxied.isEmpty ? direct : proxied
        let run = String(UInt32.random(in: 0...UInt32.max, using: &random), radix: 36)
        rooms = (0..<load.rooms).map { "chaos-\(run)-\($0)" }
        var clients: [ChaosClient] = []
        for (number, room) in rooms.enumerated() {
            for index in 0..<load.clients {
                let isSafe = load.publishersAreSafe && index < load.publishers
                var settings = ChaosClient.Settings(
                    ports: isSafe ? direct : ports, patience: load.patience, padding: load.padding)
                settings.interval = index < load.publishers ? load.interval : nil
                settings.isSlow = index >= load.clients - load.slow
                clients.append(
                    ChaosClient(
                        user: "r\(number)u\(index)", room: room, settings: settings, seed: random.next(),
                        recorder: recorder))
            }
        }
        (self.cluster, self.clients, self.load) = (cluster, clients, load)
        let grace = cluster.environment["MARTLET_RESUME_GRACE_SECONDS"].flatMap { Int64($0) } ?? 0
        circumstances.withLock { circumstances in
            circumstances.slow = Set(clients.filter(\.settings.isSlow).map(\.user))
            // The end of the grace counts from when the node noticed.
            circumstances.grace = max(0, grace * 1000 - 500)
        }
        self.random = Mutex(random)
    }

    // MARK: What a scenario does

    func pick<Element: Sendable>(_ elements: [Element]) throws -> Element {
        let picked = random.withLock { elements.randomElement(using: &$0) }
        guard let picked else { throw TimedOut("a scenario that picks one of none") }
        return picked
    }

    func shuffled<Element: Sendable>(_ elements: [Element]) -> [Element] {
        random.withLock { elements.shuffled(using: &$0) }
    }

    func number(_ range: ClosedRange<Int>) -> Int { random.withLock { Int.random(in: range, using: &$0) } }

    /// The harm itself lasts so long.
    func wait(_ milliseconds: Int) async throws { try await Task.sleep(for: .milliseconds(milliseconds)) }

    /// Redis is out of reach for somebody while `body` runs, and until all nodes can deliver again.
    func outage(_ body: () async throws -> Void) async throws {
        let start = recorder.now
        try await body()
        for node in cluster.nodes { try await node.waitUntilReady(within: .seconds(30)) }
        let end = recorder.now
        circumstances.withLock { $0.outages.append(start...end) }
    }

    /// What a scenario finds by itself.
    func note(_ kind: Verdict.Kind, _ text: String) {
        findings.withLock { $0.append(.init(kind: kind, text: text)) }
    }

    /// The first of these has become the cluster's Redis; all end with the run.
    func replaceRedis(by successors: ClusterRedis...) { self.successors.withLock { $0 = successors } }

    /// The last seq that a client of each room has.
    var ends: [String: Int64] {
        var ends: [String: Int64] = [:]
        for client in clients { ends[client.room] = max(ends[client.room] ?? 0, client.position.seq) }
        return ends
    }

    /// Acknowledged messages that stand behind the end of their room in this Redis.
    func acknowledged(beyond redis: ClusterRedis) async throws -> Int {
        var count = 0
        for room in rooms {
            let end = try await redis.command("HGET", cluster.key("{r:\(room)}:meta"), "seq").int ?? 0
            count += recorder.history(of: room).count { observation in
                if case .acknowledged(_, let seq, _) = observation.event { seq > end } else { false }
            }
        }
        return count
    }

    var gaps: Int {
        rooms.reduce(0) { count, room in
            count
                + recorder.history(of: room).count { observation in
                    if case .gap = observation.event { true } else { false }
                }
        }
    }

    /// Connections that ended because their client read too slowly.
    var closedAsSlow: Int { clients.reduce(0) { $0 + $1.closedAsSlow } }

    /// Nobody publishes, and everybody has everything.
    func quiet() async {
        for client in clients { client.publish(from: nil) }
        _ = try? await poll(within: .seconds(30), "all to agree") { self.hasSettled ? true : nil }
    }

    func speak() {
        let now = recorder.now
        for client in clients { client.publish(from: now) }
    }

    func allJoined() async throws {
        _ = try await poll(within: .seconds(60), "all clients to join") {
            self.clients.allSatisfy(\.isJoined) ? true : nil
        }
    }

    // MARK: The course of it

    func begin() async throws {
        for client in clients {
            let task = Task { await client.run() }
            tasks.withLock { $0.append(task) }
        }
        let ticking = Task { [clients, recorder] in
            while !Task.isCancelled {
                let now = recorder.now
                for client in clients { client.tick(now) }
                try? await Task.sleep(for: .milliseconds(100))
            }
        }
        tasks.withLock { $0.append(ticking) }
        try await allJoined()
        let now = recorder.now
        circumstances.withLock { $0.load = now...Int64.max }
        speak()
        try await wait(1000)
    }

    /// Ends the load, waits until nothing changes any more, and checks.
    ///
    /// - Parameter limit: so long, for G4: every member list converges within 60 s.
    func end(within limit: Duration) async -> Verdict {
        let now = recorder.now
        circumstances.withLock { $0.load = $0.load.lowerBound...now }
        for client in clients { client.publish(from: nil) }
        _ = try? await poll(within: limit, every: .milliseconds(100), "all to agree") {
            self.hasSettled ? true : nil
        }
        for client in clients where load.clients <= 100 { client.noteMembers() }
        var verdict = Verdict()
        for room in rooms {
            verdict = verdict + Checker.check(recorder.history(of: room), circumstances.withLock { $0 })
            await compareRedis(room, &verdict)
        }
        for client in clients {
            for violation in client.violations { verdict.note(.answer, "\(client.user): \(violation)") }
            if !client.isJoined { verdict.note(.presence, "\(client.user) is not back") }
        }
        verdict.problems += findings.withLock { $0 }
        await stop()
        return verdict
    }

    /// Into the folder that MARTLET_TEST_LOGS names, if it is set: what the checker read.
    func saveHistories() {
        guard let folder = Chaos.environment["MARTLET_TEST_LOGS"] else { return }
        for room in rooms {
            let lines = recorder.history(of: room).map { "\($0.at) \($0.client) \($0.event)" }
            try? lines.joined(separator: "\n")
                .write(toFile: "\(folder)/\(cluster.prefix)-\(room).history", atomically: false, encoding: .utf8)
        }
    }

    func stop() async {
        for client in clients { client.stop() }
        for task in tasks.withLock({ $0 }) { task.cancel() }
        for task in tasks.withLock({ $0 }) { await task.value }
        for redis in successors.withLock({ $0 }) { await redis.stop() }
    }

    private func compareRedis(_ room: String, _ verdict: inout Verdict) async {
        let users = Set(clients.filter { $0.room == room }.map(\.user))
        let redis = successors.withLock { $0.first } ?? cluster.redis
        let known = try? await Set(redis.command("HKEYS", cluster.key("{r:\(room)}:users")).strings)
        if let known, known != users {
            verdict.note(.presence, "Redis has \(known.sorted()) in \(room), there are \(users.sorted())")
        }
    }

    private var hasSettled: Bool {
        guard clients.allSatisfy(\.isJoined) else { return false }
        for room in rooms {
            let here = clients.filter { $0.room == room }
            let users = Set(here.map(\.user))
            let positions = here.map(\.position)
            let end = positions.map(\.seq).max() ?? 0
            let settled = positions.allSatisfy { position in
                position.seq == end && position.unacknowledged.isEmpty && position.epoch == positions[0].epoch
                    && (position.members == users || users.count > 100)
            }
            if !settled { return false }
        }
        return true
    }
}
