enum LogText {
    /// Appends the text as a JSON string (RFC 8259 section 7). Beyond what JSON asks, DEL, the C1 controls, line and
    /// paragraph separators and direction overrides are `\u` escapes too: a line of a log is often read in a terminal.
    static func append(_ text: String, to out: inout [UInt8]) {
        out.append(UInt8(ascii: "\""))
        for scalar in text.unicodeScalars {
            switch scalar.value {
            case 0x22: out += #"\""#.utf8
            case 0x5C: out += #"\\"#.utf8
            case 0x0A: out += #"\n"#.utf8
            case 0x0D: out += #"\r"#.utf8
            case 0x09: out += #"\t"#.utf8
            case 0x00...0x1F, 0x7F...0x9F, 0x061C, 0x200E, 0x200F, 0x2028...0x202E, 0x2066...0x2069, 0xFEFF:
                out += #"\u"#.utf8
                for shift in [12, 8, 4, 0] {
                    let digit = UInt8((scalar.value >> UInt32(shift)) & 0xF)
                    out.append(digit < 10 ? 0x30 + digit : 0x57 + digit)
                }
            case 0x20...0x7E: out.append(UInt8(scalar.value))
            default: out += UTF8.encode(scalar).map(Array.init) ?? []
            }
        }
        out.append(UInt8(ascii: "\""))
    }
}
