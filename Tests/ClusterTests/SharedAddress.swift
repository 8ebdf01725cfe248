import Glibc
import Synchronization
import TestSupport

/// A listening socket on loopback that this process holds as systemd would.
final class SharedAddress: Sendable {
    let descriptor: Int32
    let port: Int

    init() throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let descriptor = descriptor
        let isBound = withUnsafeMutableBytes(of: &address) { bytes in
            guard let pointer = bytes.baseAddress?.assumingMemoryBound(to: sockaddr.self) else { return false }
            return bind(descriptor, pointer, length) == 0 && listen(descriptor, 4096) == 0
                && getsockname(descriptor, pointer, &length) == 0
        }
        guard isBound else { throw SystemCallFailed("bind") }
        port = Int(UInt16(bigEndian: address.sin_port))
    }

    deinit { close(descriptor) }

    /// Somebody is in the queue.
    var isWaitedAt: Bool {
        var wait = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return poll(&wait, 1, 0) == 1
    }

    /// Ready; each with the cluster's nodes.
    func routers(_ count: Int, of cluster: Cluster) async throws -> [ClusterProcess] {
        let routers = try (1...count).map { number in
            ClusterProcess(
                .router, name: "router-\(number)", port: port, internalPort: try FreePort.next(),
                environment: cluster.environment, socket: descriptor)
        }
        for router in routers { try await router.start() }
        for router in routers { try await router.isReady() }
        return routers
    }
}

/// Clients that come one after the other, say hello, and go; several at once.
final class Attempts: Sendable {
    private let state = Mutex((made: 0, failures: [String](), isOver: false))
    private let workers = Mutex<Task<Void, Never>?>(nil)

    init(on cluster: Cluster, port: Int) {
        let task = Task {
            await withTaskGroup(of: Void.self) { group in
                for _ in 0..<4 {
                    group.addTask {
                        while !self.state.withLock(\.isOver) {
                            do {
                                let client = try await cluster.open("/ws?user=\(newUser())", port: port)
                                let isWelcome = try? await client.next("welcome")
                                client.close()
                                let closed = try await client.closed()
                                // One that met a node as it began to drain was told to come again.
                                guard isWelcome != nil || closed.code == 4000 else { throw TimedOut("\(closed)") }
                                self.state.withLock { $0.made += 1 }
                            } catch {
                                self.state.withLock { $0.failures.append("\(error)") }
                            }
                        }
                    }
                }
            }
        }
        workers.withLock { $0 = task }
    }

    var made: Int { state.withLock(\.made) }

    /// - Returns: what failed.
    func end() async -> [String] {
        state.withLock { $0.isOver = true }
        await workers.withLock { $0 }?.value
        return state.withLock(\.failures)
    }
}

extension ClusterProcess {
    /// By its internal port: the other is not its own alone.
    func isReady() async throws {
        _ = try await poll(within: .seconds(30), "\(name) to be ready") {
            try await self.internals("/readyz").status == 200 ? true : nil
        }
    }
}
