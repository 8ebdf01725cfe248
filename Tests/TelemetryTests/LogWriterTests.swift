import Foundation
import Glibc
import Telemetry
import Testing

@Suite("The writer of log lines")
struct LogWriterTests {
    /// A pipe whose reader stands still until it is asked to read.
    private struct StalledReader {
        let reading: Int32
        let writing: Int32

        init() throws {
            var ends: [Int32] = [-1, -1]
            try #require(pipe(&ends) == 0)
            (reading, writing) = (ends[0], ends[1])
            _ = fcntl(writing, 1031 /* F_SETPIPE_SZ */, 4096)
        }

        /// Returns when the pipe takes no line more, so when its writer stands still.
        func waitUntilFull() {
            var held: Int32 = 0
            repeat { _ = ioctl(reading, UInt(FIONREAD), &held) } while held < 4000
        }

        /// Reads until a line that contains `last`.
        func lines(upTo last: String) -> [String] {
            var text = ""
            var buffer = [UInt8](repeating: 0, count: 4096)
            while !(text.hasSuffix("\n") && text.split(separator: "\n").last?.contains(last) == true) {
                let count = read(reading, &buffer, buffer.count)
                guard count > 0 else { break }
                text += String(decoding: buffer[..<count], as: UTF8.self)
            }
            return text.split(separator: "\n").map(String.init)
        }
    }

    private func line(_ number: Int) -> [UInt8] { Array("\(number) \(String(repeating: "x", count: 93))\n".utf8) }

    @Test("waits for nobody: a reader that stands still loses lines, is told how many, and gets the rest in order")
    func stall() throws {
        let reader = try StalledReader()
        let writer = LogWriter(descriptor: reader.writing, maximumLines: 200, clock: { 0 })
        Thread.detachNewThread { writer.run() }
        for number in 0..<100 { writer.write(line(number)) }
        reader.waitUntilFull()
        for number in 100..<1000 { writer.write(line(number)) }
        let lines = reader.lines(upTo: "log lines were dropped")
        let last = try #require(lines.last)
        let dropped = 1000 - (lines.count - 1)
        #expect(dropped > 700, "the pipe holds 4 KiB, the queue 200 lines")
        #expect(last.contains(#""level":"warning","msg":"log lines were dropped","count":\#(dropped)}"#))
        #expect(lines.dropLast().map { $0.prefix { $0 != " " } }.map { Int($0) ?? -1 } == Array(0..<(1000 - dropped)))
        writer.write(Array("again\n".utf8))
        #expect(reader.lines(upTo: "again") == ["again"])
    }

    @Test("holds no more bytes than it may")
    func bytes() throws {
        let reader = try StalledReader()
        let writer = LogWriter(descriptor: reader.writing, maximumBytes: 1000, clock: { 0 })
        // Nothing is written before the thread runs, so that the number is exact.
        for number in 10..<30 { writer.write(line(number)) }
        Thread.detachNewThread { writer.run() }
        let lines = reader.lines(upTo: "log lines were dropped")
        #expect(lines.count == 11)
        #expect(lines.last?.hasSuffix(#""count":10}"#) == true)
    }

    @Test("flush returns when all is written, and at its deadline when nobody reads")
    func flush() throws {
        let reader = try StalledReader()
        let writer = LogWriter(descriptor: reader.writing)
        Thread.detachNewThread { writer.run() }
        for number in 0..<20 { writer.write(line(number)) }
        writer.flush(milliseconds: 60_000)
        #expect(reader.lines(upTo: "19 ").count == 20)
        for number in 0..<100 { writer.write(line(number)) }
        writer.flush(milliseconds: 10)
        #expect(reader.lines(upTo: "99 ").count == 100)
    }
}
