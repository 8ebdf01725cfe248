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
        sample(name, type: "gauge", help: help, value: value, labels: labels)
    }

    package mutating func gauge(_ name: String, help: String, _ value: Int, labels: Labels = [:]) {
        gauge(name, help: help, Double(value), labels: labels)
    }

    /// By convention the name ends with `_total`.
    package mutating func counter(_ name: String, help: String, _ value: Double, labels: Labels = [:]) {
        sample(name, type: "counter", help: help, value: value, labels: labels)
    }

    package mutating func counter(_ name: String, help: String, _ value: Int, labels: Labels = [:]) {
        counter(name, help: help, Double(value), labels: labels)
    }

    /// - Parameters:
    ///   - bounds: rising, of all buckets but the last, which has none.
    ///   - counts: of each bucket by itself, one more than bounds.
    package mutating func histogram(
        _ name: String, help: String, bounds: [Double], counts: [Int], sum: Double, labels: Labels = [:]
    ) {
        var total = 0
        for (bound, count) in zip(bounds + [.infinity], counts) {
            total += count
            sample(
                name, type: "histogram", help: help, suffix: "_bucket", value: Double(total), labels: labels,
                bound: MetricsText.number(bound))
        }
        sample(name, type: "histogram", help: help, suffix: "_sum", value: sum, labels: labels)
        sample(name, type: "histogram", help: help, suffix: "_count", value: Double(total), labels: labels)
    }

    /// How long a certificate of this process is still good.
    ///
    /// - Parameter notAfter: seconds since 1970.
    package mutating func certificate(_ file: String, notAfter: Int64) {
        gauge(
            "martlet_tls_certificate_expiry_seconds", help: "Until the certificate ends; less than 0 when it has.",
            Double(notAfter - WallClock.milliseconds() / 1000), labels: ["file": file])
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
        _ name: String, type: String, help: String, suffix: String = "", value: Double, labels: Labels,
        bound: String? = nil
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
