package enum Timestamp {
    /// RFC 3339 in UTC with milliseconds: `2026-09-21T14:13:20.123Z`.
    ///
    /// - Parameter milliseconds: since 1970-01-01T00:00:00Z.
    package static func text(milliseconds: Int64) -> String {
        let perDay: Int64 = 86_400_000
        let day = milliseconds >= 0 ? milliseconds / perDay : (milliseconds - perDay + 1) / perDay
        let rest = milliseconds - day * perDay
        let date = civil(dayNumber: day)
        var out: [UInt8] = []
        out.reserveCapacity(24)
        append(date.year, 4, then: "-", to: &out)
        append(date.month, 2, then: "-", to: &out)
        append(date.day, 2, then: "T", to: &out)
        append(rest / 3_600_000, 2, then: ":", to: &out)
        append(rest / 60_000 % 60, 2, then: ":", to: &out)
        append(rest / 1000 % 60, 2, then: ".", to: &out)
        append(rest % 1000, 3, then: "Z", to: &out)
        return String(decoding: out, as: UTF8.self)
    }

    /// The Gregorian date of a day counted from 1970-01-01; years are counted from March so that a leap day is last
    /// (Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days).
    private static func civil(dayNumber: Int64) -> (year: Int64, month: Int64, day: Int64) {
        let shifted = dayNumber + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let marchMonth = (5 * dayOfYear + 2) / 153
        let month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * marchMonth + 2) / 5 + 1)
    }

    private static func append(_ number: Int64, _ digits: Int, then mark: Unicode.Scalar, to out: inout [UInt8]) {
        var divisor: Int64 = 1
        for _ in 1..<digits { divisor *= 10 }
        while divisor > 0 {
            out.append(0x30 + UInt8(abs(number / divisor % 10)))
            divisor /= 10
        }
        out.append(UInt8(ascii: mark))
    }
}
