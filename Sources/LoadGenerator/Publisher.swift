import CLinux
import Glibc
import Synchronization
import WireProtocol

/// The one sender of a fan-out run, on the caller's thread.
struct Publisher {
    private let scenario: FanOut
    private let tally: Tally
    private let socket: Int32
    private let startSeq: Int64
    /// The `seq` of the last message that was acknowledged.
    private(set) var lastSeq: Int64
    private var sent: Int64 = 0
    private var reader: FrameReader
    private var writer: FrameWriter
    private let text: String

    /// Connects and joins the room.
    init(_ scenario: FanOut, tally: Tally, join: [UInt8]) throws(LoadError) {
        var reader = FrameReader()
        var writer = FrameWriter()
        socket = try openWebSocket(scenario.endpoints[0], user: "publisher")
        try sendAll(writer.text(join), to: socket)
        startSeq = try awaitMessage("joined", on: socket, &reader)
        self.scenario = scenario
        self.tally = tally
        self.reader = reader
        self.writer = writer
        text = String(repeating: "x", count: scenario.bytes)
        lastSeq = startSeq
    }

    func close() {
        Glibc.close(socket)
    }

    /// Sends rounds for so long, then stops without waiting for those in flight.
    /// - Returns: messages sent, and seconds passed.
    mutating func publish(
        for seconds: Double,
        progress: (String) -> Void
    ) throws(LoadError) -> (published: Int, elapsed: Double) {
        let begin = nanoseconds()
        let end = begin + UInt64(seconds * 1e9)
        let first = sent
        var nextReport = begin + 1_000_000_000
        var now = begin
        while now < end {
            var wait = end - now
            var goal = sent - Int64(scenario.inFlight) + 1
            if sent - Int64(rounds()) < scenario.inFlight {
                let due = scenario.rate > 0 ? begin + UInt64(Double(sent - first) / scenario.rate * 1e9) : now
                if due <= now {
                    try send(due: due)
                    now = nanoseconds()
                    continue
                }
                wait = min(wait, due - now)
                goal = .max
            }
            try rest(atMost: wait, orUntil: goal)
            now = nanoseconds()
            if now >= nextReport {
                nextReport += 1_000_000_000
                progress("\(sent - first) messages in \((now - begin) / 1_000_000_000) s")
            }
        }
        return (Int(sent - first), Double(now - begin) / 1e9)
    }

    /// Waits until every receiver has every message and every message is acknowledged.
    mutating func drain() throws(LoadError) {
        let deadline = nanoseconds() + 10_000_000_000
        while Int64(rounds()) < sent {
            guard nanoseconds() < deadline else {
                throw LoadError("\(sent - Int64(rounds())) messages did not reach everybody within 10 s")
            }
            try rest(atMost: 50_000_000, orUntil: sent)
        }
    }

    /// Messages that are acknowledged and that everybody has.
    private func rounds() -> Int {
        min(Int(lastSeq - startSeq), tally.delivered.load(ordering: .acquiring) / scenario.members)
    }

    private mutating func send(due: UInt64) throws(LoadError) {
        sent += 1
        tally.setDue(startSeq + sent, due)
        var json = JSONWriter()
        json.beginObject()
        json.member("type", "message")
        json.member("room", scenario.room)
        json.member("text", text)
        json.member("id", String(sent))
        json.endObject()
        try sendAll(writer.text(json.bytes), to: socket)
    }

    /// Waits for an ack or for the receivers to finish this many rounds, and reads what came.
    private mutating func rest(atMost wait: UInt64, orUntil goal: Int64) throws(LoadError) {
        let deliveries = goal == .max ? Int.max : Int(goal) * scenario.members
        tally.wakeAt.store(deliveries, ordering: .sequentiallyConsistent)
        var polled = [
            pollfd(fd: socket, events: Int16(POLLIN), revents: 0),
            pollfd(fd: tally.goOn, events: Int16(POLLIN), revents: 0),
        ]
        // Who passed the goal before it was set did not ring.
        let isDone = tally.delivered.load(ordering: .sequentiallyConsistent) >= deliveries && lastSeq - startSeq >= goal
        var bound =
            isDone ? timespec() : timespec(tv_sec: Int(wait / 1_000_000_000), tv_nsec: Int(wait % 1_000_000_000))
        ppoll(&polled, 2, &bound, nil)
        if polled[1].revents != 0 {
            var drained: UInt64 = 0
            read(tally.goOn, &drained, 8)
        }
        try tally.check()
        if polled[0].revents != 0 { try readAcks() }
    }

    private mutating func readAcks() throws(LoadError) {
        var chunk = [UInt8](repeating: 0, count: 65536)
        let n = recv(socket, &chunk, chunk.count, Int32(MSG_DONTWAIT))
        guard n > 0 else {
            if n < 0 && (errno == EAGAIN || errno == EINTR) { return }
            throw LoadError("the publisher's connection ended")
        }
        var fault: String?
        var acked = lastSeq
        var pings: [[UInt8]] = []
        let broken = chunk.withUnsafeBytes {
            reader.read(UnsafeRawBufferPointer(rebasing: $0[..<n])) { frame in
                let message = Scan(payload: frame.payload)
                switch frame.opcode {
                case 9: pings.append(Array(frame.payload))
                case 8:
                    fault = "the publisher was closed: \(String(decoding: frame.payload.dropFirst(2), as: UTF8.self))"
                case 1 where message.isType("ack"):
                    if message.seq != acked + 1 { fault = "ack out of order after \(acked): \(message.text)" }
                    acked += 1
                case 1 where message.isType("error"):
                    fault =
                        message.refusal
                case 1 where message.isType("message"): fault = "somebody else publishes to \(scenario.room)"
                default: break
                }
            }
        }
        lastSeq = acked
        if let reason = broken ?? fault { throw LoadError(reason) }
        for ping in pings { try sendAll(writer.pong(ping), to: socket) }
    }
}
