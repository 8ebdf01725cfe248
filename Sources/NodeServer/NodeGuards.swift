import CLinux
import ChatCore
import Glibc
import Logging
import NIOCore
import NIOPosix
import Synchronization
import Telemetry
import WebSocketTransport
import WireProtocol

/// What protects a node from its clients, for all of its loops: who may connect, and how each address and user behaved.
final class NodeGuards: Sendable {
    let gate: ConnectionGate
    let users: ConductGuard<UserName>
    /// No new client is to come: the node drains.
    let isDraining = Atomic(false)
    private let shares: Mutex<UserShares?>
    private let limitsUsers: Bool
    private let memoryLimit: Int
    private let watchesOver = Atomic(0)
    private let failedAccepts: ThrottledLine
    private let missingHeaders: ThrottledLine
    private let logger: Logger

    init(_ configuration: NodeConfiguration, logger: Logger) {
        gate = ConnectionGate(limits: configuration.gate, trustedProxies: configuration.trustedProxies) {
            (address: IPAddress, cause, seconds) in
            logger.warning(
                "an address is barred",
                metadata: ["address": "\(address)", "cause": "\(cause.rawValue)", "seconds": "\(seconds)"])
        }
        users = ConductGuard(limits: ConductLimits(faults: configuration.gate.address.faults)) {
            (user: UserName, cause, seconds) in
            logger.warning(
                "a user is barred",
                metadata: ["user": "\(user)", "cause": "\(cause.rawValue)", "seconds": "\(seconds)"])
        }
        shares = Mutex(UserShares(ratePerSecond: configuration.limits.userMessagesPerSecond))
        limitsUsers = configuration.limits.userMessagesPerSecond > 0
        memoryLimit = configuration.limits.memoryBytes
        failedAccepts = ThrottledLine(.error, "connections wait and cannot be taken", logger: logger)
        missingHeaders = ThrottledLine(
            .warning, "a connection of a trusted proxy has no header of the PROXY protocol and was closed",
            logger: logger)
        self.logger = logger
    }

    /// Why no new client is to come; `nil` when they may.
    var reasonNotReady: String? { gate.isOutOfMemory ? "the memory limit is reached" : nil }

    /// Once a second, on one loop.
    func watchMemory() {
        guard memoryLimit > 0, let bytes = Self.residentBytes() else { return }
        // Room for a few before it is over again.
        let isOver = bytes > (gate.isOutOfMemory ? memoryLimit - memoryLimit / 20 : memoryLimit)
        // What the allocator keeps counts too; giving it back takes a while.
        if isOver, watchesOver.add(1, ordering: .relaxed).newValue % 10 == 1 { malloc_trim(0) }
        guard isOver != gate.isOutOfMemory else { return }
        gate.isOutOfMemory = isOver
        let figures: Logger.Metadata = ["bytes": "\(bytes)", "limit": "\(memoryLimit)"]
        if isOver {
            logger.warning("over the memory limit: new connections are refused", metadata: figures)
        } else {
            logger.notice("below the memory limit again", metadata: figures)
        }
    }

    /// Of this process, as proc(5) has it in the second field of `/proc/self/statm`.
    static func residentBytes() -> Int? {
        let file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: 128)
        let count = read(file, &bytes, bytes.count)
        guard count > 0 else { return nil }
        let fields = bytes[..<count].split(separator: UInt8(ascii: " "))
        guard fields.count > 1, let pages = Int(String(decoding: fields[1], as: UTF8.self)) else { return nil }
        return pages * sysconf(Int32(_SC_PAGESIZE))
    }

    /// On any thread.
    func cannotAccept(_ error: IOError) { failedAccepts.say(["error": "\(error)"]) }

    /// What clients send is their own affair; a proxy that writes no header loses every connection until somebody sets it up.
    func cannotRead(_ what: Unreadable, of client: IPAddress) {
        switch what {
        case .proxyHeader(let reason): missingHeaders.say(["reason": "\(reason)", "client": "\(client)"])
        case .tls, .http: logger.debug("unreadable", metadata: ["reason": "\(what)", "client": "\(client)"])
        }
    }

    // MARK: Rates of users

    /// A frame of `user`, on any loop.
    func take(_ user: UserName) -> TokenBucket.TakeAction {
        guard limitsUsers else { return .pass }
        let now = NIODeadline.now().uptimeNanoseconds
        return shares.withLock { $0?.take(user, now: now) } ?? .pass
    }

    func reportRates() -> [(user: UserName, demand: Int)] {
        limitsUsers ? shares.withLock { $0?.report() } ?? [] : []
    }

    func learn(_ user: UserName, others: Int) {
        let now = NIODeadline.now().uptimeNanoseconds
        shares.withLock { $0?.learn(user, others: others, now: now) }
    }

    /// In the text format of Prometheus.
    func metrics() -> [UInt8] {
        var text = MetricsText()
        text.gauge("martlet_connections_open", help: "Connections, HTTP included.", Double(gate.openConnections))
        text.gauge(
            "martlet_unauthenticated", help: "WebSockets of nobody yet.", Double(max(0, gate.unauthenticated)))
        text.gauge(
            "martlet_resident_bytes", help: "Memory of the process that is in RAM.",
            Double(Self.residentBytes() ?? 0))
        text.counter(
            "martlet_connections_dropped_total", help: "Connections over a limit, closed without an answer.",
            gate.droppedConnections)
        text.counter(
            "martlet_accept_failures_total",
            help: "Tries to take a connection that failed, as for want of descriptors; ten a second while it lasts.",
            failedAccepts.count)
        let refusals = gate.refusals
        for reason in GateRefusal.Reason.allCases {
            text.counter(
                "martlet_connections_refused_total", help: "Connections and handshakes over a limit.",
                refusals[reason] ?? 0, labels: ["reason": reason.rawValue])
        }
        let anomalies = gate.addresses.anomalies
        for cause in AnomalyCause.allCases {
            text.counter(
                "martlet_anomaly_total", help: "What clients did that none should.", anomalies[cause] ?? 0,
                labels: ["cause": cause.rawValue])
        }
        for (kind, count) in [("address", gate.addresses.barred), ("user", users.barred)] {
            text.counter(
                "martlet_barred_total", help: "Times that one was barred for its anomalies.", count,
                labels: ["kind": kind])
        }
        return text.bytes
    }
}
