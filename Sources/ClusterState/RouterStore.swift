package import NIOCore
package import RedisClient
import WireProtocol

/// What a router says of itself, each time that it renews its lease.
package struct RouterFigures: Sendable, Hashable {
    /// 1–128 bytes of what an ``Incarnation``'s name has; for people, and not unique.
    package var name: String
    /// `host:port` where it takes clients.
    package var address: String
    /// `host:port` of /metrics and /nodes.
    package var internalAddress: String
    package var version: String
    /// Milliseconds since 1970 by its own clock.
    package var startedAt: Int64
    /// Of clients, tunnels included.
    package var connections: Int
    /// Answered or handed over since the start.
    package var requests: Int
    /// Over the last few seconds.
    package var requestsPerSecond: Double
    /// Nodes that it knows, and those of them that take clients.
    package var nodes: Int
    package var readyNodes: Int
    /// Names of the nodes that it leaves out as they failed it.
    package var ejected: [String]
    package var draining: Bool

    package init(
        name: String, address: String, internalAddress: String, version: String, startedAt: Int64,
        connections: Int = 0, requests: Int = 0, requestsPerSecond: Double = 0, nodes: Int = 0, readyNodes: Int = 0,
        ejected: [String] = [], draining: Bool = false
    ) {
        (self.name, self.address, self.internalAddress) = (name, address, internalAddress)
        (self.version, self.startedAt, self.connections) = (version, startedAt, connections)
        (self.requests, self.requestsPerSecond) = (requests, requestsPerSecond)
        (self.nodes, self.readyNodes, self.ejected, self.draining) = (nodes, readyNodes, ejected, draining)
    }
}

extension RouterFigures {
    /// `name=r-8080 address=…`: whoever does not know a field passes over it, so that versions may be mixed.
    var text: String {
        [
            "name=\(name)", "address=\(address)", "internal=\(internalAddress)", "version=\(version)",
            "started=\(startedAt)", "connections=\(connections)", "requests=\(requests)",
            "rate=\(requestsPerSecond.rounded(toPlaces: 1))", "nodes=\(nodes)", "ready=\(readyNodes)",
            "ejected=\(ejected.joined(separator: ","))", "draining=\(draining ? 1 : 0)",
        ].joined(separator: " ")
    }

    /// nil for what is not of a router: without a name and an address. A number that makes no sense is 0.
    init?(text: String) {
        var fields: [Substring: Substring] = [:]
        for word in text.split(separator: " ") {
            guard let equals = word.firstIndex(of: "=") else { continue }
            fields[word[..<equals]] = word[word.index(after: equals)...]
        }
        func field(_ key: Substring) -> String { String(fields[key] ?? "") }
        func number(_ key: Substring) -> Int { max(0, fields[key].flatMap { Int($0) } ?? 0) }
        guard Incarnation.isValid(name: field("name")), !field("address").isEmpty else { return nil }
        let rate = Double(field("rate")) ?? 0
        self.init(
            name: field("name"), address: field("address"), internalAddress: field("internal"),
            version: field("version"), startedAt: Int64(number("started")), connections: number("connections"),
            requests: number("requests"), requestsPerSecond: rate.isFinite ? max(0, rate) : 0, nodes: number("nodes"),
            readyNodes: number("ready"), ejected: field("ejected").split(separator: ",").map(String.init),
            draining: number("draining") == 1)
    }
}

/// A router that holds its lease.
package struct RouterRecord: Sendable, Hashable {
    /// One a process.
    package let id: String
    package let figures: RouterFigures
    /// What is left by the clock of Redis.
    package let leaseMs: Int64
    /// How old the figures are by the clock of Redis.
    package let figuresAgeMs: Int64

    package init(id: String, figures: RouterFigures, leaseMs: Int64, figuresAgeMs: Int64) {
        (self.id, self.figures, self.leaseMs, self.figuresAgeMs) = (id, figures, leaseMs, figuresAgeMs)
    }
}

/// The routers as Redis holds them: a line each in one hash, for people alone. Nothing is decided by it, so a router that
/// cannot write it, or a Redis that lost it, harms nobody.
package struct RouterStore: Sendable {
    let redis: RedisClient
    let keys: ClusterKeys

    package init(redis: RedisClient, keys: ClusterKeys) {
        self.redis = redis
        self.keys = keys
    }

    /// The router is listed until `lease` from now; one round trip, also when Redis is full.
    ///
    /// - Parameter id: one a process, at most 64 bytes.
    package func tell(_ figures: RouterFigures, id: String, lease: TimeAmount) -> EventLoopFuture<Void> {
        redis.evaluate(
            ClusterScripts.routerTell, keys: [.string(keys.routers)],
            arguments: [.string(id), .integer(lease.milliseconds), .string(figures.text)]
        ).map { _ in }
    }

    /// The router is listed no more.
    package func end(id: String) -> EventLoopFuture<Void> {
        redis.evaluate(
            ClusterScripts.routerTell, keys: [.string(keys.routers)], arguments: [.string(id), "0", ""]
        ).map { _ in }
    }

    /// Those that hold their lease, by name and start.
    package func list() -> EventLoopFuture<[RouterRecord]> {
        redis.evaluate(ClusterScripts.routersRead, keys: [.string(keys.routers)], arguments: []).map { reply in
            let fields = reply.array ?? []
            return stride(from: 0, to: fields.count - 3, by: 4).compactMap { index -> RouterRecord? in
                guard let id = fields[index].string, let lease = fields[index + 1].int,
                    let age = fields[index + 2].int,
                    let figures = fields[index + 3].string.flatMap({ RouterFigures(text: $0) })
                else { return nil }
                return RouterRecord(id: id, figures: figures, leaseMs: lease, figuresAgeMs: age)
            }.sorted {
                ($0.figures.name, $0.figures.startedAt, $0.id) < ($1.figures.name, $1.figures.startedAt, $1.id)
            }
        }
    }
}
