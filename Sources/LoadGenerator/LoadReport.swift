import WireProtocol

/// What a run measured. A run that saw a message lost, doubled or out of order throws instead.
package struct LoadReport: Sendable {
    package let scenario: String
    package let parameters: [(name: String, value: Double)]
    /// What `operations` counts.
    package let unit: String
    package let operations: Int
    package let messages: Int
    /// Seconds of the measured part.
    package let elapsed: Double
    package let latency: Histogram
    package let costs: [ProcessCost]
    package let ownCPUSeconds: Double
    package let connections: Int

    private func microsecondsPerOperation(_ seconds: Double) -> Double {
        operations > 0 ? seconds * 1e6 / Double(operations) : 0
    }

    private static let quantiles: [(String, Double)] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999)]

    /// An aligned table for people.
    package var table: String {
        let settings = parameters.map { "\($0.name) \(decimal($0.value, 0))" }.joined(separator: ", ")
        var rows = [
            ("scenario", "\(scenario) (\(settings))"),
            ("checked", "every message once and in order"),
            ("messages", "\(messages) in \(decimal(elapsed, 2)) s, \(decimal(Double(messages) / elapsed, 0)) a second"),
        ]
        if operations != messages {
            rows.append(("deliveries", "\(operations), \(decimal(Double(operations) / elapsed, 0)) a second"))
        }
        let times = Self.quantiles.map { "\($0.0) \(milliseconds(latency.quantile($0.1)))" }
        rows.append(("latency ms", (times + ["max \(milliseconds(latency.maximum))"]).joined(separator: "  ")))
        for cost in costs {
            let each = decimal(microsecondsPerOperation(cost.cpuSeconds), 3)
            let memory = "\(cost.residentBefore >> 10) → \(cost.residentAfter >> 10) KiB"
            rows.append(
                (
                    "\(cost.name) \(cost.pid)",
                    "\(each) µs CPU a \(unit), \(decimal(100 * cost.cpuSeconds / elapsed, 0)) % of a core, \(memory)"
                )
            )
        }
        rows.append(("this program", "\(decimal(microsecondsPerOperation(ownCPUSeconds), 3)) µs CPU a \(unit)"))
        let width = rows.map(\.0.count).max() ?? 0
        return rows.map { $0 + String(repeating: " ", count: width + 2 - $0.count) + $1 }.joined(separator: "\n")
    }

    /// One JSON object; its fields are stable.
    package var json: String {
        var json = JSONWriter()
        json.beginObject()
        json.member("scenario", scenario)
        for (name, value) in parameters { json.number(name, value, value == value.rounded() ? 0 : 3) }
        json.number("seconds", elapsed, 3)
        json.member("messages", messages)
        json.number("messages_per_second", Double(messages) / elapsed, 1)
        json.member("operations", operations)
        json.number("operations_per_second", Double(operations) / elapsed, 1)
        json.member("connections", connections)
        json.key("latency_ms")
        json.beginObject()
        for (name, share) in Self.quantiles { json.number(name, Double(latency.quantile(share)) / 1e6, 4) }
        json.number("max", Double(latency.maximum) / 1e6, 4)
        json.endObject()
        json.key("processes")
        json.beginArray()
        for cost in costs {
            json.beginObject()
            json.member("pid", Int(cost.pid))
            json.member("name", cost.name)
            json.number("cpu_seconds", cost.cpuSeconds, 6)
            json.number("cpu_us_per_operation", microsecondsPerOperation(cost.cpuSeconds), 4)
            json.member("resident_before", cost.residentBefore)
            json.member("resident_after", cost.residentAfter)
            json.endObject()
        }
        json.endArray()
        json.number("own_cpu_us_per_operation", microsecondsPerOperation(ownCPUSeconds), 4)
        json.endObject()
        return json.string
    }
}

extension JSONWriter {
    fileprivate mutating func number(_ key: String, _ value: Double, _ places: Int) {
        self.key(key)
        raw(decimal(value, places).utf8)
    }
}

private func milliseconds(_ nanoseconds: UInt64) -> String {
    decimal(Double(nanoseconds) / 1e6, 2)
}

/// Fixed-point text without Foundation; values are finite and far below 2^53 after scaling.
private func decimal(_ value: Double, _ places: Int) -> String {
    let scale = (0..<places).reduce(1) { scale, _ in scale * 10 }
    let scaled = Int((value.magnitude * Double(scale)).rounded())
    let sign = value < 0 && scaled > 0 ? "-" : ""
    guard places > 0 else { return "\(sign)\(scaled)" }
    let fraction = String(scaled % scale)
    return "\(sign)\(scaled / scale)." + String(repeating: "0", count: places - fraction.count) + fraction
}
