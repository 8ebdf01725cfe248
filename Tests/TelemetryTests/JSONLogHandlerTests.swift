import Logging
import Synchronization
import Telemetry
import Testing

@Suite("JSON log lines")
struct JSONLogHandlerTests {
    private final class Sink: Sendable {
        private let stored = Mutex<[[UInt8]]>([])
        func write(_ line: [UInt8]) { stored.withLock { $0.append(line) } }
        var lines: [String] { stored.withLock { $0.map { String(decoding: $0, as: UTF8.self) } } }
    }

    private func logger(_ sink: Sink, level: Logger.Level = .trace) -> Logger {
        Logger(label: "test") { _ in
            JSONLogHandler(level: level, write: sink.write, clock: { 1_790_000_000_123 })
        }
    }

    @Test("a line is one object with ts, level, msg and flat, sorted metadata")
    func shape() {
        let sink = Sink()
        var logger = logger(sink)
        logger[metadataKey: "node"] = "a.7"
        logger.info(
            "connected",
            metadata: [
                "user": "bob", "rooms": .stringConvertible(3), "ok": .stringConvertible(true), "peer": ["port": "80"],
                "list": ["x", .stringConvertible(0.5)], "level": "mine",
            ])
        #expect(
            sink.lines == [
                #"{"ts":"2026-09-21T14:13:20.123Z","level":"info","msg":"connected","level_":"mine","list":["x",0.5],"#
                    + #""node":"a.7","ok":true,"peer.port":"80","rooms":3,"user":"bob"}"# + "\n"
            ])
    }

    @Test("T12: nothing in a value can begin a line or reach a terminal as a control")
    func injection() {
        let sink = Sink()
        logger(sink).error("a\n{\"level\":\"info\"}\u{1B}[2J\u{9B}\u{2028}\u{202E}é🐦\u{0}")
        #expect(
            sink.lines == [
                #"{"ts":"2026-09-21T14:13:20.123Z","level":"error","msg":"a\n{\"level\":\"info\"}"#
                    + #"\u001b[2J\u009b\u2028\u202eé🐦\u0000"}"# + "\n"
            ])
    }

    @Test("lines below the level are not written")
    func level() {
        let sink = Sink()
        let logger = logger(sink, level: .warning)
        logger.info("no")
        logger.warning("yes")
        #expect(sink.lines.count == 1)
    }

    @Test(
        "times are RFC 3339 in UTC",
        arguments: [
            (0, "1970-01-01T00:00:00.000Z"), (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"), (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (1_709_251_199_001, "2024-02-29T23:59:59.001Z"), (1_735_689_600_000, "2025-01-01T00:00:00.000Z"),
        ] as [(Int64, String)])
    func times(milliseconds: Int64, text: String) {
        #expect(Timestamp.text(milliseconds: milliseconds) == text)
    }
}
