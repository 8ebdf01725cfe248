import Telemetry
import WireProtocol

/// What a run measured. A run that saw a message lost, doubled or out of order throws instead.
package struct LoadReport: Sendable {
    let scenario: String
    let parameters: [(name: String, value: Double)]
    /// What costs are counted by, and what `operations` counts.
    let operation: String
    /// What was checked, and held.
    let checked: String
    let operations: Int
    /// Operations or messages a second that were asked for; 0 for as many as possible, nil where there are none.
    let rate: Double?
    let connections: Int
    let measured: Measured

    private var elapsed: Double { measured.elapsed }

    private func microsecondsPerOperation(_ seconds: Double) -> Double {
        operations > 0 ? seconds * 1e6 / Double(operations) : 0
    }

    /// Bytes of resident memory that the connections brought, divided by their number.
    private func bytesPerConnection(_ cost: ProcessCost) -> Double {
        Double(cost.residentAfter - cost.residentAtStart) / Double(connections)
    }

    private static let quantiles: [(String, Double)] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999)]

    /// By what they are the latency of; `latency_ms` is that of the operation.
    private var latencies: [(name: String, key: String, histogram: Histogram)] {
        let page = measured.page
        let isDelivery = operation == "delivery"
        let all = [
            ("delivery", isDelivery ? "latency_ms" : "delivery_latency_ms", page.deliveryLatency),
            (isDelivery ? "ack" : operation, isDelivery ? "ack_latency_ms" : "latency_ms", page.answerLatency),
        ]
        return all.filter { $0.2.count > 0 }
    }

    /// What latency counts from: with a rate it is corrected for coordinated omission.
    private var latencyCounts: String {
        (rate ?? 0) > 0 ? "from when it was due" : "service time: from when it was sent"
    }

    /// An aligned table for people.
    package var table: String {
        let settings = parameters.map { "\($0.name) \(decimal($0.value, 0))" }.joined(separator: ", ")
        var rows = [("scenario", "\(scenario) (connections \(connections), \(settings))"), ("checked", checked)]
        if let rate {
            let asked = rate > 0 ? " of \(decimal(rate, rate < 10 ? 3 : 0)) asked for" : ""
            let answers = measured.page.answers
            rows.append(
                (
                    operation == "delivery" ? "messages" : operation + "s",
                    "\(answers) in \(decimal(elapsed, 2)) s, \(decimal(Double(answers) / elapsed, 0)) a second\(asked)"
                ))
        }
        if measured.page.deliveries > 0 {
            let each = decimal(Double(measured.page.deliveries) / elapsed, 0)
            rows.append(("deliveries", "\(measured.page.deliveries), \(each) a second"))
        }
        for (name, _, histogram) in latencies {
            let times = Self.quantiles.map {
                "\($0.0.replacing("_", with: ".")) \(milliseconds(histogram.quantile($0.1)))"
            }
            let all = (times + ["max \(milliseconds(histogram.maximum))"]).joined(separator: "  ")
            rows.append(("\(name) ms", "\(all)  (\(latencyCounts))"))
        }
        for cost in measured.costs {
            let memory =
                "\(cost.residentAtStart >> 10) → \(cost.residentBefore >> 10) → \(cost.residentAfter >> 10) KiB"
            rows.append(
                (
                    "\(cost.name) \(cost.pid)",
                    (rate == nil
                        ? "" : "\(decimal(microsecondsPerOperation(cost.cpuSeconds), 3)) µs CPU a \(operation), ")
                        + "\(decimal(100 * cost.cpuSeconds / elapsed, 1)) % of a core, \(memory)"
                        + (rate == nil ? ", \(decimal(bytesPerConnection(cost), 0)) bytes a connection" : "")
                ))
        }
        rows.append(
            (
                "this program",
                rate == nil
                    ? "\(decimal(100 * measured.ownCPUSeconds / elapsed, 1)) % of a core"
                    : "\(decimal(microsecondsPerOperation(measured.ownCPUSeconds), 3)) µs CPU a \(operation)"
            ))
        let width = rows.map(\.0.count).max() ?? 0
        return rows.map { $0 + String(repeating: " ", count: width + 2 - $0.count) + $1 }.joined(separator: "\n")
    }

    /// One JSON object; its fields are stable.
    package var json: String {
        var json = JSONWriter()
        json.beginObject()
        json.member("scenario", scenario)
        for (name, value) in parameters { json.number(name, value, value == value.rounded() ? 0 : 3) }
        json.member("connections", connections)
        json.number("seconds", elapsed, 3)
        if let rate { json.number("rate", rate, 1) }
        json.member("messages", measured.page.answers)
        json.number("messages_per_second", Double(measured.page.answers) / elapsed, 1)
        json.member("operation", operation)
        json.member("operations", operations)
        json.number("operations_per_second", Double(operations) / elapsed, 1)
        json.member("latency_counts", latencyCounts)
        for (_, key, histogram) in latencies {
            json.key(key)
            json.beginObject()
            for (name, share) in Self.quantiles { json.number(name, Double(histogram.quantile(share)) / 1e6, 4) }
            json.number("max", Double(histogram.maximum) / 1e6, 4)
            json.endObject()
        }
        json.key("processes")
        json.beginArray()
        for cost in measured.costs { add(cost, over: elapsed, to: &json, isWhole: true) }
        json.endArray()
        json.number("own_cpu_seconds", measured.ownCPUSeconds, 6)
        json.number("own_cpu_us_per_operation", microsecondsPerOperation(measured.ownCPUSeconds), 4)
        if !measured.intervals.isEmpty { addIntervals(to: &json) }
        json.endObject()
        return json.string
    }

    private func add(_ cost: ProcessCost, over seconds: Double, to json: inout JSONWriter, isWhole: Bool) {
        json.beginObject()
        json.member("pid", Int(cost.pid))
        json.member("name", cost.name)
        json.number("cpu_seconds", cost.cpuSeconds, 6)
        json.number("cpu_percent", 100 * cost.cpuSeconds / seconds, 3)
        if isWhole {
            json.number("cpu_us_per_operation", microsecondsPerOperation(cost.cpuSeconds), 4)
            json.member("resident_at_start", cost.residentAtStart)
            json.member("resident_before", cost.residentBefore)
            json.number("bytes_per_connection", bytesPerConnection(cost), 1)
        }
        json.member("resident_after", cost.residentAfter)
        json.endObject()
    }

    private func addIntervals(to json: inout JSONWriter) {
        json.key("intervals")
        json.beginArray()
        for interval in measured.intervals {
            let page = interval.page
            let latency = page.deliveries > 0 ? page.deliveryLatency : page.answerLatency
            json.beginObject()
            json.number("second", interval.second, 1)
            json.number("messages_per_second", Double(page.answers) / interval.seconds, 1)
            json.number("deliveries_per_second", Double(page.deliveries) / interval.seconds, 1)
            for (name, share) in Self.quantiles { json.number(name, Double(latency.quantile(share)) / 1e6, 4) }
            json.number("max", Double(latency.maximum) / 1e6, 4)
            json.key("processes")
            json.beginArray()
            for cost in interval.costs { add(cost, over: interval.seconds, to: &json, isWhole: false) }
            json.endArray()
            json.endObject()
        }
        json.endArray()
    }
}

extension JSONWriter {
    fileprivate mutating func number(_ key: String, _ value: Double, _ places: Int) {
        self.key(key)
        raw(decimal(value, places).utf8)
    }
}

func milliseconds(_ nanoseconds: UInt64) -> String {
    decimal(Double(nanoseconds) / 1e6, 2)
}

/// Fixed-point text without Foundation; values are finite and far below 2^53 after scaling.
func decimal(_ value: Double, _ places: Int) -> String {
    let scale = (0..<places).reduce(1) { scale, _ in scale * 10 }
    let scaled = Int((value.magnitude * Double(scale)).rounded())
    let sign = value < 0 && scaled > 0 ? "-" : ""
    guard places > 0 else { return "\(sign)\(scaled)" }
    let fraction = String(scaled % scale)
    return "\(sign)\(scaled / scale)." + String(repeating: "0", count: places - fraction.count) + fraction
}
