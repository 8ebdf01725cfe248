import Glibc

/// Where the chat is shown and typed.
protocol ChatScreen: AnyObject {
    /// Whether a line that begins with a slash is a command.
    var takesCommands: Bool { get }
    func start()
    func end()
    /// One line of the transcript, without controls but those of `ChatStyle`.
    func print(_ line: String)
    func setStatus(_ status: String, waiting: Int)
    func edit(_ bytes: [UInt8]) -> [LineEditor.Action]
    /// What is left at the end of the input.
    func finish() -> [LineEditor.Action]
    func redraw()
}

/// Lines in, lines out.
final class PlainScreen: ChatScreen {
    let takesCommands = false
    private var partial: [UInt8] = []

    func start() {}
    func end() {}
    func redraw() {}
    func setStatus(_ status: String, waiting: Int) {}

    func print(_ line: String) {
        Terminal.write(line + "\n", to: STDOUT_FILENO)
    }

    func edit(_ bytes: [UInt8]) -> [LineEditor.Action] {
        var actions: [LineEditor.Action] = []
        for byte in bytes {
            guard byte == UInt8(ascii: "\n") else {
                partial.append(byte)
                continue
            }
            actions.append(.line(String(decoding: partial, as: UTF8.self)))
            partial = []
        }
        return actions
    }

    /// A last line need not end with a line feed.
    func finish() -> [LineEditor.Action] {
        partial.isEmpty ? [] : edit([UInt8(ascii: "\n")])
    }
}

/// The transcript scrolls above two lines that stay: the status and the line being typed. The terminal is in raw mode
/// from `start` to `end`, and on every way out of the process that can be caught.
final class TerminalScreen: ChatScreen {
    let takesCommands = true
    private var editor = LineEditor()
    private var status = ""
    private var waiting = 0
    private var saved = termios()
    private var isDrawn = false
    private let style: ChatStyle

    init(colour: Bool) {
        style = ChatStyle(isOn: colour)
    }

    func start() {
        tcgetattr(STDIN_FILENO, &saved)
        var raw = saved
        raw.c_lflag &= ~tcflag_t(ICANON | ECHO | ISIG | IEXTEN)
        raw.c_iflag &= ~tcflag_t(IXON | ICRNL)
        tcsetattr(STDIN_FILENO, TCSADRAIN, &raw)
        draw()
    }

    func end() {
        erase()
        tcsetattr(STDIN_FILENO, TCSADRAIN, &saved)
    }

    func print(_ line: String) {
        let erasure = erasing()
        isDrawn = false
        Terminal.write(erasure + line + "\r\n" + drawing(), to: STDOUT_FILENO)
    }

    func setStatus(_ status: String, waiting: Int) {
        guard status != self.status || waiting != self.waiting else { return }
        self.status = status
        self.waiting = waiting
        redraw()
    }

    func edit(_ bytes: [UInt8]) -> [LineEditor.Action] {
        let actions = bytes.flatMap { editor.feed($0) }
        redraw()
        return actions
    }

    func finish() -> [LineEditor.Action] { [] }

    func redraw() {
        let erasure = erasing()
        isDrawn = false
        Terminal.write(erasure + drawing(), to: STDOUT_FILENO)
    }

    private func erase() {
        Terminal.write(erasing(), to: STDOUT_FILENO)
        isDrawn = false
    }

    private func draw() {
        Terminal.write(drawing(), to: STDOUT_FILENO)
    }

    /// Back to the start of the status line, and nothing below it.
    private func erasing() -> String {
        isDrawn ? "\r\u{1b}[1A\u{1b}[J" : ""
    }

    private func drawing() -> String {
        isDrawn = true
        let columns = max(20, Terminal.columns(STDOUT_FILENO) ?? 80)
        let kept =
            waiting == 0 ? "" : style.warning(waiting == 1 ? "1 message waits · " : "\(waiting) messages wait · ")
        let top = ChatStyle.truncated(kept + status, to: columns - 1)
        let (line, cursor) = editor.visible(columns: columns - 3)
        return top + "\r\n\(style.bold(">")) " + line + "\r\u{1b}[\(cursor + 2)C"
    }
}

extension ChatStyle {
    /// Cuts visible text to `columns` of a terminal; colour sequences count nothing and are kept.
    static func truncated(_ text: String, to columns: Int) -> String {
        var result = ""
        var used = 0
        var inSequence = false
        for character in text {
            if inSequence || character == "\u{1b}" {
                inSequence = character != "m"
                result.append(character)
            } else {
                used += DisplayWidth.of(character)
                if used <= columns { result.append(character) }
            }
        }
        return result
    }
}
