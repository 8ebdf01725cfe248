import MartletClient
import Synchronization
import TestSupport
import Testing

/// What docs/upgrading.md says, step by step, while people talk.
@Suite("A rolling upgrade", .patience)
struct RollingUpgradeTests {
    @Test(
        "G2 G3: replaces three nodes and both routers one after the other while clients chat: nothing is lost, nobody refused",
        arguments: ["on", "off"]
    )
    func everything(handover: String) async throws {
        let options = Cluster.Options(
            nodes: 3,
            environment: [
                "MARTLET_HANDOVER": handover, "MARTLET_RESUME_GRACE_SECONDS": "30", "MARTLET_DRAIN_SECONDS": "8",
                "MARTLET_DRAIN_RATE": "10", "MARTLET_LIMIT_MESSAGES_PER_SECOND": "0",
                // Who is cut off by a router is away for up to two seconds, while the others go on.
                "MARTLET_HISTORY_MESSAGES": "20000",
            ])
        try await Machine.with(options, weight: 3) { cluster in
            let (room, address) = (newRoom(), try SharedAddress())
            let routers = try await address.routers(2, of: cluster)
            let members = try (0..<9).map { number in
                try ConformancePlayer(
                    url: "ws://127.0.0.1:\(address.port)/ws", credential: .user("member-\(number)"))
            }
            for member in members {
                member.client.connect()
                member.join([room])
            }
            for member in members { try await see(member, "a member to be in the room") { !$0.joined.isEmpty } }
            let attempts = Attempts(on: cluster, port: address.port)
            let talk = Talk(of: members, in: room)

            for node in cluster.nodes {
                _ = try await cluster.admin("drain", node.name)
                #expect(try await node.process?.waitForExit(within: .seconds(60)) == .status(0))
                try await node.start()
                try await node.waitUntilReady()
            }
            for router in routers {
                router.terminate()
                #expect(try await router.process?.waitForExit(within: .seconds(60)) == .status(0))
                try await router.start()
                try await router.isReady()
            }

            let said = await talk.end()
            let failures = await attempts.end()
            #expect(failures == [])
            let all = try await heard(by: members, said.flatMap(\.self).count)
            for (number, texts) in said.enumerated() {
                #expect(
                    all.filter { $0.hasPrefix("member-\(number) ") } == texts,
                    "each once, in the order in which it was said")
            }
            for member in members {
                let record = member.record.current
                #expect(record.messages.map(\.text) == all && record.gaps.isEmpty)
                #expect(record.fates.allSatisfy { $0.fate == "acked" })
                #expect(Set(record.sessions).count == 1, "it goes on in its session: \(record.sessions)")
                // Who is sent away, or cut off by a router at its deadline, comes back at the first attempt.
                let states = record.states
                #expect(!zip(states, states.dropFirst()).contains { $0 == ("connecting", "waiting") }, "\(states)")
            }
        }
    }

    /// - Returns: what the first of them heard, when all have heard as many.
    private func heard(by members: [ConformancePlayer], _ count: Int) async throws -> [String] {
        for member in members { try await see(member, "a member to hear \(count)") { $0.messages.count >= count } }
        return members[0].record.current.messages.compactMap(\.text)
    }
}

/// Members who say something again and again, each the next when the one before is acknowledged.
private final class Talk: Sendable {
    private let isOver = Atomic(false)
    private let task = Mutex<Task<[[String]], Never>?>(nil)

    init(of members: [ConformancePlayer], in room: String) {
        let started = Task {
            await withTaskGroup(of: (Int, [String]).self) { group in
                for (number, member) in members.enumerated() {
                    group.addTask {
                        var said: [String] = []
                        while !self.isOver.load(ordering: .relaxed) {
                            let text = "member-\(number) \(said.count)"
                            said.append(text)
                            member.send([text], to: .room(room))
                            let count = said.count
                            // A fate that never comes is seen by whoever counts what was heard.
                            _ = try? await member.record.wait(within: .seconds(60), "a fate") {
                                $0.fates.count >= count ? true : nil
                            }
                        }
                        return (number, said)
                    }
                }
                var all = members.map { _ in [String]() }
                for await (number, said) in group { all[number] = said }
                return all
            }
        }
        task.withLock { $0 = started }
    }

    /// - Returns: what each of them said.
    func end() async -> [[String]] {
        isOver.store(true, ordering: .relaxed)
        return await task.withLock { $0 }?.value ?? []
    }
}
