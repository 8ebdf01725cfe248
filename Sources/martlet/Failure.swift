/// What ends a command: one sentence for stderr and the exit code.
struct Failure: Error, Equatable {
    enum Code: Int32, Sendable {
        /// What was asked for does not exist, or anything that has no code of its own.
        case failed = 1
        /// A flag, an argument, a setting of the environment.
        case usage = 2
        case redisUnreachable = 3
    }

    let code: Code
    /// Without the leading `martlet:` and without the final full stop.
    let sentence: String

    init(_ code: Code, _ sentence: String) {
        self.code = code
        self.sentence = sentence
    }
}

enum Printable {
    /// The text with everything a terminal would act on (controls, line and paragraph separators, direction
    /// overrides) written as `\n`, `\t` or `\u{…}`.
    static func text(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: isUnsafe) else { return text }
        var result = ""
        for scalar in text.unicodeScalars {
            if scalar == "\n" {
                result += "\\n"
            } else if scalar == "\t" {
                result += "\\t"
            } else if isUnsafe(scalar) {
                result += "\\u{" + String(scalar.value, radix: 16) + "}"
            } else {
                result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    /// The same, of at most 60 characters.
    static func short(_ text: String) -> String {
        text.count > 60 ? Self.text(String(text.prefix(59))) + "…" : Self.text(text)
    }

    private static func isUnsafe(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0x00...0x1F, 0x7F...0x9F, 0x200E, 0x200F, 0x2028...0x202E, 0x2066...0x2069, 0x061C, 0xFEFF: true
        default: false
        }
    }
}
