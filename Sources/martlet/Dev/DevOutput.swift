import Glibc
import Telemetry
import WireProtocol

/// The terminal of `martlet dev`: lines of all children, each with its name in front, and our own.
///
/// The children write to pipes that are always read: a terminal that stands still (Ctrl-S), or a pipe that nobody reads,
/// costs lines, which are counted and told later, and stops nothing of the cluster. A reader that went away (`| head`)
/// ends dev, as SIGPIPE would have.
final class DevOutput: Sendable {
    private let names: [String]
    private let width: Int
    private let colour: Bool
    private let writer: LogWriter

    init(names: [String], colour: Bool, descriptor: Int32 = STDOUT_FILENO, maximumLines: Int = 10_000) {
        let width = (names + ["dev"]).map(\.count).max() ?? 0
        self.names = names
        self.width = width
        self.colour = colour
        let writer = LogWriter(
            descriptor: descriptor, maximumLines: maximumLines,
            droppedLine: { count in
                let text = count == 1 ? "a line was left out" : "\(count) lines were left out"
                return Array((Self.prefix("dev", "1", width, colour) + text + ", as nobody read them\n").utf8)
            }, readerIsGone: { exit(0) })
        self.writer = writer
        Threads.detach { writer.run() }
    }

    /// Waits up to a second until all that was said is written. Call it before the process ends.
    func flush() { writer.flush() }

    /// A line of our own, from `dev`.
    func say(_ text: String) { write(prefix("dev", "1"), [UInt8](Printable.text(text).utf8)[...]) }

    /// Text that goes out as it is.
    func show(_ text: String) { writer.write(Array(text.utf8)) }

    func line(_ line: ArraySlice<UInt8>, of child: Int) {
        let hues = ["36", "32", "33", "35", "34", "96", "92", "93", "95", "94"]
        write(prefix(names[child], hues[child % hues.count]), line)
    }

    /// Reads the child's output to its end, on a thread of its own; closes the descriptor.
    func follow(_ descriptor: Int32, of child: Int) {
        Threads.detach {
            var pending: [UInt8] = []
            var chunk = [UInt8](repeating: 0, count: 16384)
            while true {
                let count = read(descriptor, &chunk, chunk.count)
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { break }
                pending += chunk[..<count]
                var start = 0
                while let end = pending[start...].firstIndex(of: UInt8(ascii: "\n")) {
                    self.line(pending[start..<end], of: child)
                    start = end + 1
                }
                pending.removeFirst(start)
                if pending.count > 65536 {
                    self.line(pending[...], of: child)
                    pending = []
                }
            }
            if !pending.isEmpty { self.line(pending[...], of: child) }
            close(descriptor)
        }
    }

    private func prefix(_ name: String, _ hue: String) -> String { Self.prefix(name, hue, width, colour) }

    private static func prefix(_ name: String, _ hue: String, _ width: Int, _ colour: Bool) -> String {
        let padded = name + String(repeating: " ", count: width - name.count)
        return colour ? "\u{1B}[\(hue)m\(padded) │\u{1B}[0m " : padded + " | "
    }

    private func write(_ prefix: String, _ line: ArraySlice<UInt8>) {
        guard line.contains(where: { $0 > 0x20 }) else { return }
        let text =
            prefix + (LogLine(line)?.text(colour: colour) ?? Printable.text(String(decoding: line, as: UTF8.self)))
        writer.write(Array((text + "\n").utf8))
    }
}

/// One of our JSON log lines, for a person: time of day, level, message, then the fields.
struct LogLine: Equatable {
    private(set) var time = ""
    private(set) var level = ""
    private(set) var message = ""
    private(set) var fields: [String] = []

    /// nil when the line is no JSON object with a `msg`.
    init?(_ line: ArraySlice<UInt8>) {
        guard line.first == UInt8(ascii: "{") else { return nil }
        let read = line.withUnsafeBytes { bytes in
            do throws(JSONError) {
                try JSONScanner.scanObject(bytes) { (key, value) throws(JSONError) in
                    let name = JSONText.string(key, in: bytes) ?? "?"
                    let text =
                        JSONText.string(value, in: bytes) ?? String(decoding: bytes[value.range], as: UTF8.self)
                    switch name {
                    case "ts": time = String(text.dropFirst(11).prefix(12))
                    case "level": level = text
                    case "msg": message = text
                    default: fields.append("\(name)=\(LogLine.quoted(text))")
                    }
                }
                return true
            } catch {
                return false
            }
        }
        guard read, !message.isEmpty else { return nil }
    }

    func text(colour: Bool) -> String {
        let name = level.uppercased().padded(to: 8)
        let shown = Printable.text(message)
        let rest = fields.isEmpty ? "" : "  " + fields.joined(separator: " ")
        guard colour else { return "\(time) \(name) \(shown)\(rest)" }
        let hue =
            switch level {
            case "error", "critical": "31"
            case "warning": "33"
            case "debug", "trace": "2"
            default: "32"
            }
        return "\u{1B}[2m\(time)\u{1B}[0m \u{1B}[\(hue)m\(name)\u{1B}[0m \(shown)\u{1B}[2m\(rest)\u{1B}[0m"
    }

    private static func quoted(_ text: String) -> String {
        let shown = Printable.text(text)
        return shown.contains(" ") || shown.isEmpty ? "\"\(shown)\"" : shown
    }
}

extension String {
    /// With spaces behind, to at least `count` characters.
    fileprivate func padded(to count: Int) -> String {
        self + String(repeating: " ", count: max(0, count - self.count))
    }
}
