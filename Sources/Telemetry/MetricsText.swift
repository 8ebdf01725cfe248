/// A page of metrics in Prometheus' text format 0.0.4. Samples of one name stand together under one HELP and TYPE, in
/// the order in which names first came, whatever the order of the calls.
package struct MetricsText: Sendable {
    package typealias Labels = KeyValuePairs<String, String>

    package static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    private struct Family: Sendable {
        var head: [UInt8]
        var samples: [UInt8] = []
    }
    private var order: [String] = []
    private var families: [String: Family] = [:]

    package init() {}

    package mutating func gauge(_ name: String, help: String, _ value: Double, labels: Labels = [:]) {
        sample(name, type: "gauge", help: help, suffix: "", value: value, labels: labels)
    }

    package mutating func gauge(_ name: String, help: String, _ value: Int, labels: Labels = [:]) {
        gauge(name, help: help, Double(value), labels: labels)
    }

    /// By convention the name ends with `_total`.
    package mutating func counter(_ name: String, help: String, _ value: Double, labels: Labels = [:]) {
        sample(name, type: "counter", help: help, suffix: "", value: value, labels: labels)
    }

    package mutating func counter(_ name: String, help: String, _ value: Int, labels: Labels = [:]) {
        counter(name, help: help, Double(value), labels: labels)
    }

    package mutating func histogram(_ name: String, help: String, _ histogram: Histogram, labels: Labels = [:]) {
        var cumulative: UInt64 = 0
        for (index, count) in histogram.counts.enumerated() {
            cumulative += count
            let bound = index < histogram.bounds.count ? MetricsText.number(histogram.bounds[index]) : "+Inf"
            sample(
                name, type: "histogram", help: help, suffix: "_bucket", value: Double(cumulative), labels: labels,
                bound: bound)
        }
        sample(name, type: "histogram", help: help, suffix: "_sum", value: histogram.sum, labels: labels)
        sample(name, type: "histogram", help: help, suffix: "_count", value: Double(cumulative), labels: labels)
    }

    package var bytes: [UInt8] {
        var out: [UInt8] = []
        for name in order {
            guard let family = families[name] else { continue }
            out += family.head
            out += family.samples
        }
        return out
    }

    package var text: String { String(decoding: bytes, as: UTF8.self) }

    private mutating func sample(
        _ name: String, type: String, help: String, suffix: String, value: Double, labels: Labels, bound: String? = nil
    ) {
        if families[name] == nil {
            order.append(name)
            let escaped = MetricsText.escape(help, quote: false)
            families[name] = Family(head: Array("# HELP \(name) \(escaped)\n# TYPE \(name) \(type)\n".utf8))
        }
        var line = name + suffix
        var pairs = labels.map { "\($0.key)=\"\(MetricsText.escape($0.value, quote: true))\"" }
        if let bound { pairs.append("le=\"\(bound)\"") }
        if !pairs.isEmpty { line += "{" + pairs.joined(separator: ",") + "}" }
        line += " " + MetricsText.number(value) + "\n"
        families[name]?.samples += line.utf8
    }

    /// Whole numbers without a fraction, the rest as Swift writes them, which Prometheus reads.
    private static func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value > 0 ? "+Inf" : "-Inf" }
        if value == value.rounded(), abs(value) < 1e15 { return String(Int64(value)) }
        return "\(value)"
    }

    private static func escape(_ text: String, quote: Bool) -> String {
        var out = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            case "\"" where quote: out += "\\\""
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out
    }
}

/// Counts observations by upper bound.
package struct Histogram: Sendable {
    /// Ascending; a bucket holds what is less than or equal to its bound.
    package let bounds: [Double]
    /// One more than `bounds`: the last holds what is above all of them.
    package private(set) var counts: [UInt64]
    package private(set) var sum: Double = 0

    package init(bounds: [Double]) {
        self.bounds = bounds.sorted()
        counts = [UInt64](repeating: 0, count: bounds.count + 1)
    }

    package mutating func observe(_ value: Double) {
        let index = bounds.firstIndex { value <= $0 } ?? bounds.count
        counts[index] += 1
        sum += value
    }

    /// - Precondition: both have the same bounds.
    package mutating func add(_ other: Histogram) {
        precondition(bounds == other.bounds)
        for index in counts.indices { counts[index] += other.counts[index] }
        sum += other.sum
    }
}
