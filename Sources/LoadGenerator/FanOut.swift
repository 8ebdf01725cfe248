import CLinux
import Glibc
import Synchronization
import WireProtocol

/// One room, N receivers, one publisher. A round is one message and its N deliveries; the publisher keeps at most `inFlight`
/// rounds undelivered. Every receiver checks that it sees every `seq` once and in order.
package struct FanOut: Sendable {
    package var endpoints: [Endpoint]
    package var members = 1000
    package var inFlight = 1
    /// Length of each message's text.
    package var bytes = 150
    /// Messages a second; 0 sends as fast as `inFlight` allows. With a rate, latency counts from the moment a message was due.
    package var rate = 0.0
    package var seconds = 5.0
    package var warmUpSeconds = 1.0
    package var threads = 2
    /// Processes whose CPU and memory are counted over the measured seconds.
    package var pids: [Int32] = []
    package var room = "bench." + String(UInt32.random(in: 0 ... .max), radix: 36)

    package init(endpoints: [Endpoint]) {
        self.endpoints = endpoints
    }

    /// Blocks for the whole run.
    /// - Parameter progress: gets a line for the terminal about once a second.
    package func run(progress: (String) -> Void) throws(LoadError) -> LoadReport {
        guard !endpoints.isEmpty, members > 0, (1...1024).contains(inFlight), (1...60_000).contains(bytes) else {
            throw LoadError("fanout needs an endpoint, a member, 1 to 1024 in flight and 1 to 60000 bytes")
        }
        try requireDescriptors(members + 1)
        let tally = try Tally()
        var pollers: [Poller<Receivers>] = []
        for _ in 0..<max(1, threads) {
            pollers.append(try Poller(sink: Receivers(tally: tally)))
        }
        defer { for poller in pollers { _ = poller.stop() } }
        let join = joinText()
        var writer = FrameWriter()
        for number in 0..<members {
            let socket = try openWebSocket(endpoints[number % endpoints.count], user: "receiver-\(number)")
            pollers[number % pollers.count].adopt(socket, number: number)
            try sendAll(writer.text(join), to: socket)
            if number % 1000 == 999 { progress("\(number + 1) of \(members) connected") }
        }
        try tally.waitForJoins(members)
        progress("\(members) joined; warming up")
        var publisher = try Publisher(self, tally: tally, join: join)
        defer { publisher.close() }
        _ = try publisher.publish(for: warmUpSeconds, progress: { _ in })
        tally.isMeasuring.store(true, ordering: .releasing)
        let watch = try ProcessWatch(pids)
        let own = nanoseconds(of: CLOCK_PROCESS_CPUTIME_ID)
        let deliveredBefore = tally.delivered.load(ordering: .acquiring)
        let (published, elapsed) = try publisher.publish(for: seconds, progress: progress)
        let deliveries = tally.delivered.load(ordering: .acquiring) - deliveredBefore
        let costs = try watch.finish()
        let ownSeconds = Double(nanoseconds(of: CLOCK_PROCESS_CPUTIME_ID) - own) / 1e9
        try publisher.drain()
        var latency = Histogram()
        for poller in pollers {
            guard let sink = poller.stop() else { continue }
            latency.add(sink.latency)
            for (number, seq) in sink.lastSeq where seq != publisher.lastSeq {
                throw LoadError("receiver \(number) ended at seq \(seq), the publisher at \(publisher.lastSeq)")
            }
        }
        return LoadReport(
            scenario: "fanout",
            parameters: [
                ("members", Double(members)), ("in_flight", Double(inFlight)), ("bytes", Double(bytes)), ("rate", rate),
            ],
            unit: "delivery",
            operations: deliveries,
            messages: published,
            elapsed: elapsed,
            latency: latency,
            costs: costs,
            ownCPUSeconds: ownSeconds,
            connections: members + 1
        )
    }

    private func joinText() -> [UInt8] {
        var json = JSONWriter()
        json.beginObject()
        json.member("type", "join")
        json.member("room", room)
        json.endObject()
        return json.bytes
    }
}

/// What publisher and receivers share.
final class Tally: Sendable {
    private static let slots = 4096

    /// Deliveries of messages so far.
    let delivered = Atomic(0)
    /// The receiver that reaches this number of deliveries rings `goOn`.
    let wakeAt = Atomic(Int.max)
    let joined = Atomic(0)
    let isMeasuring = Atomic(false)
    let failure = Mutex<String?>(nil)
    /// An eventfd on which the publisher waits.
    let goOn: Int32
    /// When the message with this `seq`, modulo 4096, was due, in monotonic nanoseconds. At most 1024 are in flight.
    private let due: [Slot] = (0..<slots).map { _ in Slot() }

    private final class Slot: Sendable {
        let time = Atomic<UInt64>(0)
    }

    init() throws(LoadError) {
        goOn = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
        guard goOn >= 0 else { throw .system("no eventfd") }
    }

    deinit {
        close(goOn)
    }

    func setDue(_ seq: Int64, _ time: UInt64) {
        due[Int(seq) & (Self.slots - 1)].time.store(time, ordering: .relaxed)
    }

    func due(_ seq: Int64) -> UInt64 {
        due[Int(seq) & (Self.slots - 1)].time.load(ordering: .relaxed)
    }

    func fail(_ reason: String) {
        failure.withLock { $0 = $0 ?? reason }
        ring(goOn)
    }

    func check() throws(LoadError) {
        if let reason = failure.withLock({ $0 }) { throw LoadError(reason) }
    }

    func waitForJoins(_ members: Int) throws(LoadError) {
        let deadline = nanoseconds() + 20_000_000_000
        while joined.load(ordering: .acquiring) < members {
            try check()
            guard nanoseconds() < deadline else {
                throw LoadError("only \(joined.load(ordering: .relaxed)) of \(members) receivers joined within 20 s")
            }
            usleep(2000)
        }
    }
}

/// The receivers of one thread.
struct Receivers: FrameSink {
    let tally: Tally
    private(set) var lastSeq: [Int: Int64] = [:]
    private(set) var latency = Histogram()
    private var burst = 0

    init(tally: Tally) {
        self.tally = tally
    }

    mutating func received(_ message: Scan, on connection: Int, at now: UInt64, send: ([UInt8]) -> Void) {
        if message.isType("message") {
            let last = lastSeq[connection] ?? 0
            guard let seq = message.seq, seq == last + 1 else {
                return tally.fail("receiver \(connection) expected seq \(last + 1) and got \(message.text.prefix(120))")
            }
            lastSeq[connection] = seq
            burst += 1
            if tally.isMeasuring.load(ordering: .relaxed) {
                let due = tally.due(seq)
                latency.record(now > due ? now - due : 0)
            }
        } else if message.isType("joined") {
            lastSeq[connection] = message.seq ?? 0
            tally.joined.add(1, ordering: .releasing)
        } else if message.isType("error") {
            tally.fail(message.refusal)
        }
    }

    mutating func lost(_ connection: Int, because reason: String) {
        tally.fail("receiver \(connection) was lost: \(reason)")
    }

    mutating func finishedBurst() {
        guard burst > 0 else { return }
        let before = tally.delivered.add(burst, ordering: .sequentiallyConsistent).oldValue
        let goal = tally.wakeAt.load(ordering: .sequentiallyConsistent)
        if before < goal && before + burst >= goal { ring(tally.goOn) }
        burst = 0
    }
}
