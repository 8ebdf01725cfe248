/// How text is marked on a terminal; without colour it stays as it is.
struct Style: Sendable {
    let colour: Bool

    func mark(_ text: String, _ hue: Hue?) -> String {
        guard colour, let hue, !text.isEmpty else { return text }
        return "\u{1B}[\(hue.rawValue)m\(text)\u{1B}[0m"
    }

    enum Hue: String, Sendable {
        case bold = "1"
        case dim = "2"
        case red = "31"
        case green = "32"
        case yellow = "33"
        case cyan = "36"
    }
}

/// Columns for people: aligned by the width text has on a terminal, cut to its width.
struct Table: Sendable {
    struct Column: Sendable {
        let title: String
        var isNumber = false
        /// May be cut, with `…`, where the terminal is too narrow.
        var isFlexible = false
    }

    struct Cell: Sendable, ExpressibleByStringLiteral {
        /// Made harmless for a terminal.
        let text: String
        let hue: Style.Hue?

        init(_ text: String, _ hue: Style.Hue? = nil) {
            self.text = Printable.text(text)
            self.hue = hue
        }

        init(_ number: some BinaryInteger) { self.init(String(number)) }

        init(stringLiteral value: String) { self.init(value) }
    }

    static let narrowest = 8

    let columns: [Column]
    var rows: [[Cell]] = []

    /// - Parameters:
    ///   - width: of the terminal; nil cuts nothing.
    /// - Returns: lines without trailing spaces.
    func lines(width: Int?, style: Style) -> [String] {
        let widths = fittedWidths(to: width)
        let head = columns.map { Cell($0.title.uppercased(), .bold) }
        return ([head] + rows).map { row in
            var line = ""
            var pending = 0
            for (index, cell) in row.enumerated() {
                let text = DisplayWidth.cut(cell.text, to: widths[index])
                let gap = widths[index] - DisplayWidth.of(text)
                let before = columns[index].isNumber ? gap : 0
                pending += before
                if !text.isEmpty {
                    line += String(repeating: " ", count: pending) + style.mark(text, cell.hue)
                    pending = 0
                }
                pending += gap - before + 2
            }
            return line
        }
    }

    private func fittedWidths(to limit: Int?) -> [Int] {
        var widths = columns.indices.map { index in
            rows.reduce(DisplayWidth.of(columns[index].title)) { max($0, DisplayWidth.of($1[index].text)) }
        }
        guard let limit else { return widths }
        var excess = widths.reduce(0, +) + 2 * (widths.count - 1) - limit
        while excess > 0 {
            let candidates = columns.indices.filter { columns[$0].isFlexible && widths[$0] > Self.narrowest }
            guard let widest = candidates.max(by: { widths[$0] < widths[$1] }) else { break }
            widths[widest] -= 1
            excess -= 1
        }
        return widths
    }
}

enum DisplayWidth {
    /// Terminal columns: two for wide characters (East Asian wide and fullwidth, emoji), none for marks that join the
    /// character before.
    static func of(_ text: String) -> Int {
        if text.utf8.allSatisfy({ $0 < 0x80 }) { return text.utf8.count }
        return text.reduce(0) { $0 + of($1) }
    }

    /// At most `width` columns, ending with `…` when something was cut away.
    static func cut(_ text: String, to width: Int) -> String {
        guard of(text) > width else { return text }
        guard width > 0 else { return "" }
        var result = ""
        var used = 0
        for character in text {
            used += of(character)
            if used > width - 1 { break }
            result.append(character)
        }
        return result + "…"
    }

    static func of(_ character: Character) -> Int {
        guard let first = character.unicodeScalars.first else { return 0 }
        let emoji = character.unicodeScalars.contains { $0.value == 0xFE0F } || first.properties.isEmojiPresentation
        if emoji || isWide(first.value) { return 2 }
        switch first.properties.generalCategory {
        case .nonspacingMark, .enclosingMark, .format: return 0
        default: return 1
        }
    }

    /// The blocks that UAX #11 calls W or F, coarsely.
    private static func isWide(_ value: UInt32) -> Bool {
        switch value {
        case 0x1100...0x115F, 0x2E80...0x303E, 0x3041...0xA4CF, 0xA960...0xA97F, 0xAC00...0xD7A3, 0xF900...0xFAFF,
            0xFE30...0xFE6F, 0xFF00...0xFF60, 0xFFE0...0xFFE6, 0x1F300...0x1F64F, 0x1F900...0x1F9FF, 0x20000...0x3FFFD:
            true
        default: false
        }
    }
}
