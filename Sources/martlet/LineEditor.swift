/// A line being typed, from the bytes of a terminal in raw mode. Pure: it draws nothing.
struct LineEditor {
    enum Action: Equatable {
        case line(String)
        /// The line changed and is not empty.
        case typing
        /// Ctrl-D on an empty line.
        case end
        /// Ctrl-C.
        case interrupt
    }

    private(set) var text: [Character] = []
    private(set) var cursor = 0
    private var sent: [String] = []
    /// Which of `sent` is shown; `sent.count` is the new line.
    private var recalled = 0
    private var draft = ""
    private var escape: [UInt8] = []
    private var partial: [UInt8] = []
    /// Columns that are scrolled out on the left.
    private var offset = 0

    static let remembered = 100

    mutating func feed(_ byte: UInt8) -> [Action] {
        if !escape.isEmpty { return continueEscape(byte) }
        switch byte {
        case 0x1B:
            escape = [byte]
            return []
        case 0x0D, 0x0A: return enter()
        case 0x03: return [.interrupt]
        case 0x04: return text.isEmpty ? [.end] : edit { $0.deleteForward() }
        case 0x08, 0x7F: return edit { $0.deleteBackward() }
        case 0x01: return move(to: 0)
        case 0x05: return move(to: text.count)
        case 0x02: return move(to: cursor - 1)
        case 0x06: return move(to: cursor + 1)
        case 0x0B: return edit { $0.text.removeSubrange($0.cursor...) }
        case 0x15:
            return edit { editor in
                editor.text.removeSubrange(..<editor.cursor)
                editor.cursor = 0
            }
        case 0x17: return edit { $0.deleteWord() }
        case 0x10: return recall(recalled - 1)
        case 0x0E: return recall(recalled + 1)
        case 0..<0x20: return []
        default: return insert(byte)
        }
    }

    /// The part of the line that fits, with the cursor in it and its column there.
    mutating func visible(columns: Int) -> (line: String, cursor: Int) {
        let before = text[..<cursor].reduce(0) { $0 + DisplayWidth.of($1) }
        if before < offset { offset = max(0, before - columns / 2) }
        if before - offset >= columns { offset = before - columns / 2 }
        var column = 0
        var line = ""
        var start = 0
        for character in text {
            let width = DisplayWidth.of(character)
            defer { column += width }
            if column < offset {
                start = column + width
                continue
            }
            if column + width - offset > columns { break }
            line.append(character)
        }
        return (line, before - max(start, offset))
    }

    private mutating func enter() -> [Action] {
        let line = String(text)
        if !line.isEmpty, line != sent.last {
            sent.append(line)
            if sent.count > Self.remembered { sent.removeFirst() }
        }
        recalled = sent.count
        set("")
        return [.line(line)]
    }

    private mutating func set(_ line: String) {
        text = Array(line)
        cursor = text.count
        offset = 0
    }

    private mutating func recall(_ index: Int) -> [Action] {
        guard (0...sent.count).contains(index), index != recalled else { return [] }
        if recalled == sent.count { draft = String(text) }
        recalled = index
        set(index == sent.count ? draft : sent[index])
        return []
    }

    private mutating func move(to position: Int) -> [Action] {
        cursor = min(max(position, 0), text.count)
        return []
    }

    private mutating func edit(_ change: (inout LineEditor) -> Void) -> [Action] {
        change(&self)
        return text.isEmpty ? [] : [.typing]
    }

    private mutating func deleteBackward() {
        guard cursor > 0 else { return }
        cursor -= 1
        text.remove(at: cursor)
    }

    private mutating func deleteForward() {
        guard cursor < text.count else { return }
        text.remove(at: cursor)
    }

    private mutating func deleteWord() {
        while cursor > 0, text[cursor - 1] == " " { deleteBackward() }
        while cursor > 0, text[cursor - 1] != " " { deleteBackward() }
    }

    /// Bytes of UTF-8; what is none is dropped.
    private mutating func insert(_ byte: UInt8) -> [Action] {
        if byte & 0xC0 != 0x80 { partial = [] }
        partial.append(byte)
        let expected =
            switch partial[0] {
            case 0xC2...0xDF: 2
            case 0xE0...0xEF: 3
            case 0xF0...0xF4: 4
            default: 1
            }
        guard partial.count >= expected else { return [] }
        let scalar = String(validating: partial, as: UTF8.self)
        partial = []
        guard let scalar, Printable.text(scalar) == scalar else { return [] }
        // A combining mark joins the character before it.
        if cursor > 0, (String(text[cursor - 1]) + scalar).count == 1 {
            text[cursor - 1] = Character(String(text[cursor - 1]) + scalar)
        } else {
            text.insert(contentsOf: scalar, at: cursor)
            cursor += 1
        }
        return [.typing]
    }

    private mutating func continueEscape(_ byte: UInt8) -> [Action] {
        escape.append(byte)
        if escape.count == 2 {
            if byte != UInt8(ascii: "["), byte != UInt8(ascii: "O") { escape = [] }
            return []
        }
        guard (0x40...0x7E).contains(byte) else {
            if escape.count > 16 { escape = [] }
            return []
        }
        let sequence = String(decoding: escape.dropFirst(2), as: UTF8.self)
        escape = []
        switch sequence {
        case "A": return recall(recalled - 1)
        case "B": return recall(recalled + 1)
        case "C": return move(to: cursor + 1)
        case "D": return move(to: cursor - 1)
        case "H", "1~", "7~": return move(to: 0)
        case "F", "4~", "8~": return move(to: text.count)
        case "3~": return edit { $0.deleteForward() }
        default: return []
        }
    }
}
