import Glibc
import NIOCore
import Telemetry

/// Numbers for people.
enum Amounts {
    /// The two largest units: `0s`, `59s`, `3m 5s`, `2h 5m`, `3d 4h`.
    static func age(milliseconds: Int64) -> String {
        let seconds = max(0, milliseconds) / 1000
        switch seconds {
        case ..<60: return "\(seconds)s"
        case ..<3600: return "\(seconds / 60)m \(seconds % 60)s"
        case ..<86400: return "\(seconds / 3600)h \(seconds / 60 % 60)m"
        default: return "\(seconds / 86400)d \(seconds / 3600 % 24)h"
        }
    }

    /// A whole number of one unit: `90s`, `10m`, `2h`, `7d`; `nil` for anything else, nothing, and more than ten years.
    static func duration(_ text: String) -> TimeAmount? {
        let units: [Character: Int64] = ["s": 1, "m": 60, "h": 3600, "d": 86400]
        guard let unit = text.last.flatMap({ units[$0] }),
            let number = SettingSyntax.wholeNumber(String(text.dropLast())).map(Int64.init),
            (1...315_360_000 / unit).contains(number)
        else { return nil }
        return .seconds(number * unit)
    }

    /// With one decimal: `-0.3s`, `9.8s`.
    static func seconds(milliseconds: Int64) -> String {
        let tenths = abs(milliseconds) / 100
        return "\(milliseconds < 0 ? "-" : "")\(tenths / 10).\(tenths % 10)s"
    }

    /// A second: `0`, `0.4`, `12.3`, `940`, `12.3k`, `4.1M`.
    static func rate(_ value: Double) -> String {
        switch value {
        case ..<0.05: return "0"
        case ..<99.95: return tenths(value)
        case ..<9999.5: return String(Int64(value.rounded()))
        case ..<999_950: return tenths(value / 1000) + "k"
        default: return tenths(min(value, 1e15) / 1_000_000) + "M"
        }
    }

    /// `0.42ms`, `8.3ms`, `420ms`, `1.2s`.
    static func latency(milliseconds: Double) -> String {
        switch milliseconds {
        case ..<0.995:
            let hundredths = Int64((max(0, milliseconds) * 100).rounded())
            return "0.\(hundredths < 10 ? "0" : "")\(hundredths)ms"
        case ..<99.95: return tenths(milliseconds) + "ms"
        case ..<999.5: return "\(Int64(milliseconds.rounded()))ms"
        default: return tenths(min(milliseconds / 1000, 1e15)) + "s"
        }
    }

    private static func tenths(_ value: Double) -> String {
        let tenths = Int64((value * 10).rounded())
        return "\(tenths / 10).\(tenths % 10)"
    }

    static func bytes(_ count: Int64) -> String {
        var value = Double(count)
        for unit in ["B", "KiB", "MiB", "GiB"] {
            if value < 1024 || unit == "GiB" {
                let tenths = Int64((value * 10).rounded())
                return unit == "B" ? "\(count) B" : "\(tenths / 10).\(tenths % 10) \(unit)"
            }
            value /= 1024
        }
        return "\(count) B"
    }

    /// `2026-09-21 14:13:20Z`
    static func time(milliseconds: Int64) -> String {
        let text = Timestamp.text(milliseconds: milliseconds)
        return text.prefix(10) + " " + text.dropFirst(11).prefix(8) + "Z"
    }

    static func now() -> Int64 { WallClock.milliseconds() }
}
