import Glibc
import Synchronization
import WireProtocol

/// Acknowledged round trips: each client has a room of its own, and sends its next message when the ack of the one before came.
package struct Echo: Sendable {
    package var endpoints: [Endpoint]
    package var clients = 1
    /// Length of each message's text.
    package var bytes = 150
    package var seconds = 5.0
    package var warmUpSeconds = 1.0
    package var pids: [Int32] = []
    package var room = "bench." + String(UInt32.random(in: 0 ... .max), radix: 36)

    package init(endpoints: [Endpoint]) {
        self.endpoints = endpoints
    }

    /// Blocks for the whole run.
    package func run(progress: (String) -> Void) throws(LoadError) -> LoadReport {
        guard !endpoints.isEmpty, clients > 0, (1...60_000).contains(bytes) else {
            throw LoadError("echo needs an endpoint, a client and 1 to 60000 bytes")
        }
        try requireDescriptors(clients)
        let control = EchoControl()
        let poller = try Poller(sink: EchoClients(scenario: self, control: control))
        defer { _ = poller.stop() }
        var writer = FrameWriter()
        for number in 0..<clients {
            let socket = try openWebSocket(endpoints[number % endpoints.count], user: "echo-\(number)")
            poller.adopt(socket, number: number)
            var json = JSONWriter()
            json.beginObject()
            json.member("type", "join")
            json.member("room", "\(room).\(number)")
            json.endObject()
            try sendAll(writer.text(json.bytes), to: socket)
        }
        try control.wait(seconds: warmUpSeconds)
        let watch = try ProcessWatch(pids)
        let own = nanoseconds(of: CLOCK_PROCESS_CPUTIME_ID)
        let before = control.acked.load(ordering: .relaxed)
        let begin = nanoseconds()
        control.isMeasuring.store(true, ordering: .relaxed)
        var left = seconds
        while left > 0 {
            try control.wait(seconds: min(1, left))
            left -= 1
            progress("\(control.acked.load(ordering: .relaxed) - before) round trips")
        }
        control.isMeasuring.store(false, ordering: .relaxed)
        let trips = control.acked.load(ordering: .relaxed) - before
        let elapsed = Double(nanoseconds() - begin) / 1e9
        let costs = try watch.finish()
        let ownSeconds = Double(nanoseconds(of: CLOCK_PROCESS_CPUTIME_ID) - own) / 1e9
        guard let sink = poller.stop(), trips > 0 else { throw LoadError("not one message was acknowledged") }
        return LoadReport(
            scenario: "echo",
            parameters: [("clients", Double(clients)), ("bytes", Double(bytes))],
            unit: "round trip",
            operations: trips,
            messages: trips,
            elapsed: elapsed,
            latency: sink.latency,
            costs: costs,
            ownCPUSeconds: ownSeconds,
            connections: clients
        )
    }
}

private final class EchoControl: Sendable {
    let acked = Atomic(0)
    let isMeasuring = Atomic(false)
    let failure = Mutex<String?>(nil)

    func wait(seconds: Double) throws(LoadError) {
        usleep(UInt32(seconds * 1e6))
        if let reason = failure.withLock({ $0 }) { throw LoadError(reason) }
    }
}

private struct EchoClients: FrameSink {
    private let scenario: Echo
    private let control: EchoControl
    private let text: String
    /// By connection: messages sent, and when the last one left.
    private var sent: [Int: (count: Int, at: UInt64, seq: Int64)] = [:]
    private(set) var latency = Histogram()

    init(scenario: Echo, control: EchoControl) {
        self.scenario = scenario
        self.control = control
        text = String(repeating: "x", count: scenario.bytes)
    }

    mutating func received(_ message: Scan, on connection: Int, at now: UInt64, send: ([UInt8]) -> Void) {
        if message.isType("ack") {
            guard let last = sent[connection], message.seq == last.seq + 1 else {
                return fail("an ack out of order: \(message.text)")
            }
            if control.isMeasuring.load(ordering: .relaxed) { latency.record(now - last.at) }
            control.acked.add(1, ordering: .relaxed)
            sendNext(on: connection, after: last.seq + 1, count: last.count, send)
        } else if message.isType("joined") {
            sendNext(on: connection, after: message.seq ?? 0, count: 0, send)
        } else if message.isType("error") {
            fail(message.refusal)
        }
    }

    private mutating func sendNext(on connection: Int, after seq: Int64, count: Int, _ send: ([UInt8]) -> Void) {
        var json = JSONWriter()
        json.beginObject()
        json.member("type", "message")
        json.member("room", "\(scenario.room).\(connection)")
        json.member("text", text)
        json.member("id", String(count + 1))
        json.endObject()
        sent[connection] = (count + 1, nanoseconds(), seq)
        send(json.bytes)
    }

    private func fail(_ reason: String) {
        control.failure.withLock { $0 = $0 ?? reason }
    }

    mutating func lost(_ connection: Int, because reason: String) {
        fail("client \(connection) was lost: \(reason)")
    }

    mutating func finishedBurst() {}
}
