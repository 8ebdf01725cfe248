package import Logging

/// A swift-log backend that writes one JSON object a line: `ts` (RFC 3339, UTC, milliseconds), `level`, `msg`, then the
/// metadata, flat and sorted by key.
///
/// 1. Nothing in a value can end a line or reach a terminal as a control: such scalars are `\u` escapes.
/// 2. Numbers and booleans given as `.stringConvertible` stay numbers and booleans; nested dictionaries become
///    `outer.inner` keys. A metadata key of the name `ts`, `level` or `msg` gets a trailing underscore.
package struct JSONLogHandler: LogHandler {
    package var metadata: Logger.Metadata = [:]
    package var metadataProvider: Logger.MetadataProvider?
    package var logLevel: Logger.Level
    private let write: @Sendable ([UInt8]) -> Void
    private let clock: @Sendable () -> Int64

    /// - Parameters:
    ///   - write: gets a whole line with its newline, on the thread that logs: it must not block (``LogWriter``).
    ///   - clock: the wall clock, in milliseconds since 1970-01-01T00:00:00Z.
    package init(
        level: Logger.Level,
        metadataProvider: Logger.MetadataProvider? = nil,
        write: @escaping @Sendable ([UInt8]) -> Void,
        clock: @escaping @Sendable () -> Int64 = { WallClock.milliseconds() }
    ) {
        logLevel = level
        self.metadataProvider = metadataProvider
        self.write = write
        self.clock = clock
    }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    package func log(event: LogEvent) {
        var all = metadataProvider?.get() ?? [:]
        all.merge(metadata) { _, new in new }
        if let own = event.metadata { all.merge(own) { _, new in new } }
        if let error = event.error, all["error"] == nil { all["error"] = "\(error)" }
        write(JSONLogHandler.line(at: clock(), level: event.level, message: event.message.description, metadata: all))
    }

    package static func line(
        at milliseconds: Int64, level: Logger.Level, message: String, metadata: Logger.Metadata
    ) -> [UInt8] {
        var line: [UInt8] = []
        line.reserveCapacity(256)
        line += #"{"ts":""#.utf8
        line += Timestamp.text(milliseconds: milliseconds).utf8
        line += #"","level":""#.utf8
        line += level.rawValue.utf8
        line += #"","msg":"#.utf8
        LogText.append(message, to: &line)
        append(metadata, prefix: "", to: &line)
        line += "}\n".utf8
        return line
    }

    private static func append(_ metadata: Logger.Metadata, prefix: String, to line: inout [UInt8]) {
        for (key, value) in metadata.sorted(by: { $0.key < $1.key }) {
            let name = prefix + (prefix.isEmpty && ["ts", "level", "msg"].contains(key) ? key + "_" : key)
            if case .dictionary(let inner) = value {
                append(inner, prefix: name + ".", to: &line)
                continue
            }
            line.append(UInt8(ascii: ","))
            LogText.append(name, to: &line)
            line.append(UInt8(ascii: ":"))
            append(value, to: &line)
        }
    }

    private static func append(_ value: Logger.Metadata.Value, to line: inout [UInt8]) {
        switch value {
        case .string(let text):
            LogText.append(text, to: &line)
        case .stringConvertible(let convertible):
            switch convertible {
            case let flag as Bool: line += (flag ? "true" : "false").utf8
            case let integer as any FixedWidthInteger: line += "\(integer)".utf8
            case let number as Double where number.isFinite: line += "\(number)".utf8
            default: LogText.append(convertible.description, to: &line)
            }
        case .array(let values):
            line.append(UInt8(ascii: "["))
            for (index, element) in values.enumerated() {
                if index > 0 { line.append(UInt8(ascii: ",")) }
                append(element, to: &line)
            }
            line.append(UInt8(ascii: "]"))
        case .dictionary(let inner):
            line.append(UInt8(ascii: "{"))
            for (index, (key, element)) in inner.sorted(by: { $0.key < $1.key }).enumerated() {
                if index > 0 { line.append(UInt8(ascii: ",")) }
                LogText.append(key, to: &line)
                line.append(UInt8(ascii: ":"))
                append(element, to: &line)
            }
            line.append(UInt8(ascii: "}"))
        }
    }
}
