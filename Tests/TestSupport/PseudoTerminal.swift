import Foundation
import Glibc
import Synchronization

/// A program behind a terminal, as a person has it: it is the leader of a session whose terminal this is, so that Ctrl-C
/// reaches it as a signal.
package final class PseudoTerminal: Sendable {
    package struct State: Sendable {
        package var screen: ScreenModel
        /// All that the program wrote.
        package var bytes: [UInt8] = []
        package var exit: ChildProcess.Exit?
        /// Everything that it wrote has been read.
        package var isAtEnd = false
    }

    // TIOCSPTLCK, TIOCGPTN and POSIX_SPAWN_SETSID.
    private static let (unlockRequest, numberRequest): (UInt, UInt) = (0x4004_5431, 0x8004_5430)
    private static let spawnsSession: Int16 = 0x80

    package let state: Watched<State>
    private let pid: pid_t
    private let main: Int32

    private init(pid: pid_t, main: Int32, columns: Int, rows: Int) {
        (self.pid, self.main) = (pid, main)
        state = Watched(State(screen: ScreenModel(columns: columns, rows: rows)))
    }

    package static func spawn(
        _ executable: String, _ arguments: [String], environment: [String: String], columns: Int, rows: Int
    ) throws -> PseudoTerminal {
        // posix_openpt(3) and its like are not among what Swift imports of glibc.
        let main = open("/dev/ptmx", O_RDWR | O_NOCTTY | Int32(O_CLOEXEC))
        var (lock, number): (Int32, Int32) = (0, 0)
        guard main >= 0, ioctl(main, unlockRequest, &lock) == 0, ioctl(main, numberRequest, &number) == 0 else {
            throw SystemCallFailed("a pseudo terminal")
        }
        setSize(main, columns, rows)
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        // The first terminal that the leader of a session opens becomes that session's.
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/pts/\(number)", O_RDWR, 0)
        posix_spawn_file_actions_adddup2(&actions, 0, 1)
        posix_spawn_file_actions_adddup2(&actions, 0, 2)
        closeInherited(&actions)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var (none, all) = (sigset_t(), sigset_t())
        sigemptyset(&none)
        sigfillset(&all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF) | spawnsSession)
        var argv: [UnsafeMutablePointer<CChar>?] = ([executable] + arguments).map { strdup($0) } + [nil]
        var envp: [UnsafeMutablePointer<CChar>?] = environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for pointer in argv + envp { free(pointer) } }
        var pid: pid_t = 0
        let code = posix_spawn(&pid, executable, &actions, &attributes, &argv, &envp)
        guard code == 0 else {
            close(main)
            throw SystemCallFailed("posix_spawn", code)
        }
        let terminal = PseudoTerminal(pid: pid, main: main, columns: columns, rows: rows)
        terminal.read()
        terminal.reap()
        return terminal
    }

    /// As if a person typed it.
    package func type(_ text: String) { _ = text.withCString { write(main, $0, strlen($0)) } }

    /// As if a person made the window as large. What the program drew before stays as it is.
    package func resize(columns: Int, rows: Int) {
        state.update { $0.screen.resize(columns: columns, rows: rows) }
        Self.setSize(main, columns, rows)
    }

    package func send(_ signal: Int32) {
        state.update { if $0.exit == nil { kill(pid, signal) } }
    }

    /// Whether lines are edited and typed text is shown, as in a shell.
    package var isCooked: Bool {
        var settings = termios()
        guard tcgetattr(main, &settings) == 0 else { return false }
        let flags = tcflag_t(ICANON | ECHO | ISIG)
        return settings.c_lflag & flags == flags
    }

    /// By job control, as Ctrl-Z does it.
    package var isStopped: Bool {
        let status = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)
        // Behind the name, which may hold anything, in parentheses.
        return status?.split(separator: ")").last?.split(separator: " ").first == "T"
    }

    /// Waits until the screen is as it should be.
    @discardableResult
    package func shows<Result: Sendable>(
        _ what: String, within limit: Duration = .seconds(30), where look: @escaping @Sendable (ScreenModel) -> Result?
    ) async throws -> Result {
        do {
            return try await state.wait(within: limit, "the terminal to show \(what)") { look($0.screen) }
        } catch {
            throw TimedOut("\(error); it shows:\n\(state.current.screen.text)")
        }
    }

    package func waitForExit() async throws -> ChildProcess.Exit {
        try await state.wait(within: .seconds(30), "the program to end") { $0.isAtEnd ? $0.exit : nil }
    }

    private static func setSize(_ descriptor: Int32, _ columns: Int, _ rows: Int) {
        var size = winsize(ws_row: UInt16(rows), ws_col: UInt16(columns), ws_xpixel: 0, ws_ypixel: 0)
        _ = ioctl(descriptor, UInt(TIOCSWINSZ), &size)
    }

    private func read() {
        Thread.detachNewThread { [state, main] in
            var buffer = [UInt8](repeating: 0, count: 65536)
            while true {
                let count = Glibc.read(main, &buffer, buffer.count)
                if count < 0, errno == EINTR { continue }
                // EIO: the program has ended.
                guard count > 0 else { break }
                state.update {
                    $0.bytes += buffer[..<count]
                    $0.screen.take(buffer[..<count])
                }
            }
            state.update { $0.isAtEnd = true }
        }
    }

    private func reap() {
        Thread.detachNewThread { [state, pid] in
            var info = siginfo_t()
            while waitid(P_PID, id_t(pid), &info, WEXITED | WNOWAIT) != 0, errno == EINTR {}
            state.update { state in
                var status: Int32 = 0
                waitpid(pid, &status, 0)
                state.exit = status & 0x7F == 0 ? .status(status >> 8 & 0xFF) : .signal(status & 0x7F)
            }
        }
    }
}

/// What a terminal shows of what a program wrote: printing characters of one column, carriage return and line feed, and the
/// few sequences that Martlet uses (xterm's names: CUP to the corner, ED, EL, SGR, the alternate screen, the cursor).
package struct ScreenModel: Sendable {
    package private(set) var columns: Int
    package private(set) var rows: Int
    package private(set) var isAlternate = false
    package private(set) var isCursorShown = true
    /// How often it was drawn from its corner.
    package private(set) var drawings = 0
    /// Lines that went out at the top of the alternate screen: none should.
    package private(set) var scrolled = 0
    /// What this model does not know.
    package private(set) var unknown: [String] = []
    private var cells: [[Character]] = []
    private var row = 0
    private var column = 0
    private var pending: [UInt8] = []

    init(columns: Int, rows: Int) {
        (self.columns, self.rows) = (columns, rows)
        clear()
    }

    package var lines: [String] {
        cells.map { line in
            var line = String(line)
            while line.last == " " { line.removeLast() }
            return line
        }
    }

    package var text: String { lines.joined(separator: "\n") }

    mutating func resize(columns: Int, rows: Int) {
        (self.columns, self.rows) = (columns, rows)
        clear()
    }

    mutating func take(_ bytes: ArraySlice<UInt8>) {
        pending += bytes
        var text = Substring(String(decoding: pending, as: UTF8.self))
        pending = []
        while let character = text.first {
            if character == "\u{1B}" {
                let rest = text.dropFirst()
                guard let end = rest.dropFirst().firstIndex(where: { $0.isLetter || $0 == "~" }) else {
                    pending = Array(text.utf8)
                    return
                }
                sequence(String(rest[...end]))
                text = text[text.index(after: end)...]
                continue
            }
            text.removeFirst()
            put(character)
        }
    }

    private mutating func put(_ character: Character) {
        switch character {
        case "\r": column = 0
        case "\n", "\r\n":
            if character == "\r\n" { column = 0 }
            row += 1
            if row == rows {
                row -= 1
                scrolled += isAlternate ? 1 : 0
                cells.removeFirst()
                cells.append(blank)
            }
        default:
            if column == columns {
                column = 0
                put("\n")
            }
            cells[row][column] = character
            column += 1
        }
    }

    private mutating func sequence(_ text: String) {
        switch text {
        case "[H":
            (row, column) = (0, 0)
            drawings += 1
        case "[2K": cells[row] = blank
        case "[K": for index in min(column, columns - 1)..<columns { cells[row][index] = " " }
        case "[J":
            for index in min(column, columns - 1)..<columns { cells[row][index] = " " }
            for index in row + 1..<max(row + 1, rows) { cells[index] = blank }
        case "[2J": clear()
        case "[?1049h":
            isAlternate = true
            clear()
        case "[?1049l":
            isAlternate = false
            clear()
        case "[?25h": isCursorShown = true
        case "[?25l": isCursorShown = false
        case _ where text.hasSuffix("m"): break
        default: unknown.append(text)
        }
    }

    private var blank: [Character] { Array(repeating: " ", count: columns) }

    private mutating func clear() {
        cells = Array(repeating: blank, count: rows)
        (row, column) = (0, 0)
    }
}
