import NIOCore
import RedisClient
import TestSupport
import Testing

@testable import ClusterState

@Suite("Routers in Redis")
struct RouterStoreTests {
    private func figures(_ name: String, startedAt: Int64 = 1) -> RouterFigures {
        RouterFigures(
            name: name, address: "[::]:8080", internalAddress: "127.0.0.1:9080", version: "1.0", startedAt: startedAt,
            connections: 41, requests: 1000, requestsPerSecond: 12.3, nodes: 3, readyNodes: 2,
            ejected: ["node-a", "node/b@c"], draining: true)
    }

    @Test("what a router tells is what is read, by name and start, with what is left of its lease")
    func told() async throws {
        try await ClusterFixture.run { cluster in
            let store = RouterStore(redis: cluster.redis, keys: cluster.keys)
            #expect(try await store.list().get().isEmpty)
            for (id, name, startedAt) in [("3", "b", Int64(9)), ("1", "b", 5), ("2", "a", 7)] {
                try await store.tell(figures(name, startedAt: startedAt), id: id, lease: .seconds(60)).get()
            }
            let list = try await store.list().get()
            #expect(list.map(\.id) == ["2", "1", "3"])
            #expect(
                list.map(\.figures) == [
                    figures("a", startedAt: 7), figures("b", startedAt: 5), figures("b", startedAt: 9),
                ])
            #expect(list.allSatisfy { (1...60_000).contains($0.leaseMs) && (0...60_000).contains($0.figuresAgeMs) })
            #expect(try await cluster.everyKey() == ["routers"])
            #expect((1...60_000).contains(try await cluster.command("PTTL", cluster.keys.routers).int ?? 0))

            try await store.end(id: "1").get()
            #expect(try await store.list().get().map(\.id) == ["2", "3"])
            try await store.end(id: "2").get()
            try await store.end(id: "3").get()
            #expect(try await cluster.everyKey().isEmpty)
        }
    }

    @Test("one whose lease is past is not listed, and goes with the next word of any other")
    func lapsed() async throws {
        try await ClusterFixture.run { cluster in
            let store = RouterStore(redis: cluster.redis, keys: cluster.keys)
            try await store.tell(figures("a"), id: "1", lease: .seconds(60)).get()
            try await cluster.command("HSET", cluster.keys.routers, "2", "1000 1 " + figures("b").text)
            #expect(try await store.list().get().map(\.id) == ["1"])
            #expect(try await cluster.strings("HKEYS", cluster.keys.routers).count == 2)
            try await store.tell(figures("a"), id: "1", lease: .seconds(60)).get()
            #expect(try await cluster.strings("HKEYS", cluster.keys.routers) == ["1"])
        }
    }

    @Test("a line of another version is read as far as it is known; one that makes no sense is passed over")
    func otherVersions() async throws {
        try await ClusterFixture.run { cluster in
            let store = RouterStore(redis: cluster.redis, keys: cluster.keys)
            let lines = [
                ("new", "9999999999999 1 colour=red name=a address=h:1 draining=0 connections=-4 rate=inf"),
                ("nameless", "9999999999999 1 address=h:1"), ("bad", "9999999999999 1 name=a{b} address=h:1"),
                ("empty", ""), ("words", "a b c"),
            ]
            for (id, line) in lines { try await cluster.command("HSET", cluster.keys.routers, id, line) }
            let list = try await store.list().get()
            #expect(list.map(\.id) == ["new"])
            #expect(
                list.first?.figures
                    == RouterFigures(name: "a", address: "h:1", internalAddress: "", version: "", startedAt: 0))
            try await store.tell(figures("b"), id: "me", lease: .seconds(60)).get()
            #expect(
                try await cluster.strings("HKEYS", cluster.keys.routers).sorted() == ["bad", "me", "nameless", "new"])
        }
    }

    @Test("what a node says of its traffic is read as it was told; nothing where it says nothing")
    func nodeTraffic() async throws {
        try await ClusterFixture.run { cluster in
            let node = try await cluster.register("node-a")
            #expect(try await cluster.nodes.list().get().first?.figures.traffic == nil)
            for (told, read) in [
                (
                    NodeTraffic(messagesIn: 12.34, messagesOut: 4100.06, p99Milliseconds: 8.347),
                    NodeTraffic(messagesIn: 12.3, messagesOut: 4100.1, p99Milliseconds: 8.35)
                ),
                (
                    NodeTraffic(messagesIn: 0, messagesOut: 1e20, p99Milliseconds: nil),
                    NodeTraffic(messagesIn: 0, messagesOut: 1e20, p99Milliseconds: nil)
                ),
            ] {
                var figures = NodeFigures.of()
                figures.traffic = told
                _ = try await cluster.nodes.heartbeat(node, figures: figures, lease: .seconds(60)).get()
                #expect(try await cluster.nodes.list().get().first?.figures.traffic == read)
            }
            for nonsense in ["", "1 2", "x 2 3", "1 -2 3", "nan 1 1"] {
                try await cluster.command("HSET", cluster.keys.node(node), "traffic", nonsense)
                #expect(try await cluster.nodes.list().get().first?.figures.traffic == nil, "\(nonsense)")
            }
        }
    }
}
