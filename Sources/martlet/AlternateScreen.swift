import Glibc

/// The terminal's second screen, on which something is drawn over and over: without a cursor, without what is typed, and
/// without a trace when it is left.
final class AlternateScreen {
    private var saved: termios?
    private var isEntered = false

    func enter() {
        var settings = termios()
        if saved == nil, tcgetattr(STDIN_FILENO, &settings) == 0 { saved = settings }
        // Again also after a stop, for which the shell puts the terminal as it wants it.
        if var settings = saved {
            settings.c_lflag &= ~tcflag_t(ICANON | ECHO)
            tcsetattr(STDIN_FILENO, TCSADRAIN, &settings)
        }
        isEntered = true
        Terminal.write("\u{1B}[?1049h\u{1B}[?25l", to: STDOUT_FILENO)
    }

    /// As it was before. Without effect the second time.
    func leave() {
        guard isEntered else { return }
        isEntered = false
        Terminal.write("\u{1B}[?25h\u{1B}[?1049l", to: STDOUT_FILENO)
        guard var saved else { return }
        tcsetattr(STDIN_FILENO, TCSADRAIN, &saved)
    }

    /// In place of what stands there.
    ///
    /// - Parameters:
    ///   - lines: at most `height`, none of them wider than the terminal.
    ///   - height: of the terminal.
    func draw(_ lines: [String], height: Int) {
        guard isEntered else { return }
        // A line is erased before it is written: behind one that fills the terminal's width the cursor stands on its last
        // column still, which erasing would take.
        let text = lines.map { "\u{1B}[2K" + $0 }.joined(separator: "\r\n")
        Terminal.write("\u{1B}[H" + text + (lines.count < height ? "\r\n\u{1B}[J" : ""), to: STDOUT_FILENO)
    }

    /// Keys as they are pressed, on a thread of their own; nothing where the input is no terminal.
    func readKeys(_ take: @escaping @Sendable ([UInt8]) -> Void) {
        guard isatty(STDIN_FILENO) == 1 else { return }
        Threads.detach {
            var buffer = [UInt8](repeating: 0, count: 64)
            while true {
                let count = read(STDIN_FILENO, &buffer, buffer.count)
                if count > 0 {
                    take(Array(buffer[..<count]))
                } else if count == 0 || errno != EINTR {
                    return
                }
            }
        }
    }
}
