import Glibc
import MartletClient

/// Colours of the terminal, or none.
struct ChatStyle {
    let isOn: Bool

    func dim(_ text: String) -> String { wrap(text, "2") }
    func bold(_ text: String) -> String { wrap(text, "1") }
    func warning(_ text: String) -> String { wrap(text, "33") }

    /// A user's name in a colour that stays theirs.
    func name(_ text: String, of user: String) -> String {
        let codes = ["36", "32", "35", "33", "34", "31", "96", "92", "95", "94"]
        var hash: UInt32 = 2_166_136_261
        for byte in user.utf8 { hash = (hash ^ UInt32(byte)) &* 16_777_619 }
        return wrap(text, "1;" + codes[Int((hash >> 16) % UInt32(codes.count))])
    }

    private func wrap(_ text: String, _ code: String) -> String {
        isOn ? "\u{1b}[\(code)m\(text)\u{1b}[0m" : text
    }
}

/// What a person typed.
enum ChatInputLine: Equatable {
    case empty
    case message(String)
    case help
    case who
    case history(Int)
    case presence(Presence)
    case quit
    case unknown(String)

    /// - Parameter takesCommands: otherwise every line that is not blank is a message, word for word.
    init(_ line: String, takesCommands: Bool = true) {
        let line = String(line.reversed().drop { $0.isWhitespace }.reversed())
        guard !line.isEmpty else {
            self = .empty
            return
        }
        guard takesCommands, line.hasPrefix("/") else {
            self = .message(line)
            return
        }
        if line.hasPrefix("//") {  // a message that begins with a slash
            self = .message(String(line.dropFirst()))
            return
        }
        let words = line.split(separator: " ")
        switch words[0] {
        case "/help", "/?": self = .help
        case "/who": self = .who
        case "/quit", "/exit", "/q": self = .quit
        case "/online", "/away", "/busy", "/invisible":
            self = Presence(rawValue: String(words[0].dropFirst())).map { .presence($0) } ?? .unknown(line)
        case "/history":
            let limit = words.count > 1 ? Int(words[1]) : 20
            self = limit.map { .history(min(max($0, 1), 100)) } ?? .unknown(line)
        default: self = .unknown(String(words[0]))
        }
    }
}

/// Events as lines for people. Nothing that others wrote reaches the terminal but as printable text.
struct ChatTranscript {
    let room: String
    let style: ChatStyle
    private var state = ConnectionState.connecting
    private var wasOnline = false
    private var isLost = false
    private var people: [String: Member]?
    private var count = 0
    private var typing: [String] = []
    /// The day of the last message line, to say when it changes.
    private var day = ""

    init(room: String, style: ChatStyle) {
        self.room = room
        self.style = style
    }

    /// For the line above the input.
    var status: String {
        switch state {
        case .connecting: return style.warning("connecting …")
        case .waiting(let milliseconds, _):
            return style.warning("no connection; trying again in \(Self.seconds(milliseconds))")
        case .closed: return style.warning("closed")
        case .online(let node, _):
            var parts = ["#\(room)", "\(count) here", Printable.text(node)]
            if !typing.isEmpty {
                let names = typing.prefix(3).map { Printable.text($0) }.joined(separator: ", ")
                parts.append(typing.count == 1 ? "\(names) is typing …" : "\(names) are typing …")
            }
            return style.dim(parts.joined(separator: " · "))
        }
    }

    var help: [String] {
        [
            notice("A line is a message. /who says who is here, /history [N] reads the last N messages,"),
            notice("/online, /away, /busy and /invisible say how you are seen."),
            notice(
                "/quit (or Ctrl-D) leaves once all is sent, Ctrl-C at once. A message that begins with a slash is typed with two."
            ),
        ]
    }

    var who: String {
        let members = (people ?? [:]).values.sorted { $0.user < $1.user }
        let names = members.map { member in
            let name = style.name(Printable.text(member.user), of: member.user)
            return member.status == "online" ? name : "\(name) (\(Printable.text(member.status)))"
        }
        let more = count > members.count ? " and \(count - members.count) more" : ""
        return "\(style.dim("\(count) here:")) \(names.joined(separator: ", "))\(more)"
    }

    func notice(_ text: String) -> String {
        style.dim("· \(text)")
    }

    mutating func lines(for event: MartletEvent) -> [String] {
        switch event {
        case .state(let new): return lines(for: new)
        case .message(let message): return lines(for: message)
        case .joined(let joined):
            guard joined.room == room, joined.recovered == true else { return [] }
            return [notice("Nothing was missed.")]
        case .left(let name, let reason):
            return name == room ? [notice("You were taken out of #\(room): \(Printable.text(reason))")] : []
        case .gap(let name, let from, let to):
            guard name == room else { return [] }
            let what = from.map { $0 == to ? "1 message" : "\(to - $0 + 1) messages" } ?? "Some messages"
            return [style.warning("· \(what) could not be recovered here.")]
        case .newest(let name, let page): return name == room ? history(page.messages) : []
        case .presence(let presence): return presence.room == room ? lines(for: presence) : []
        case .typing(let name, let users):
            if name == room { typing = users }
            return []
        case .refused(let error): return [notice(Printable.text(error.message))]
        case .tokenExpiring(let milliseconds):
            return [
                notice("Your token ends in \(milliseconds / 1000) s, and the chat with it: come back with a new one.")
            ]
        }
    }

    mutating func history(_ messages: [ChatMessage]) -> [String] {
        messages.isEmpty ? [notice("Nothing was said here yet.")] : messages.flatMap { lines(for: $0) }
    }

    private mutating func lines(for new: ConnectionState) -> [String] {
        state = new
        switch new {
        case .online(let node, _):
            defer {
                wasOnline = true
                isLost = false
            }
            return [
                notice(
                    wasOnline ? "Connected again, to \(Printable.text(node))." : "Connected to \(Printable.text(node))."
                )
            ]
        case .waiting(let milliseconds, let reason):
            typing = []
            let why = reason.isEmpty ? "" : " (\(Printable.text(reason)))"
            let what = isLost ? "Still no connection" : wasOnline ? "The connection is lost" : "There is no connection"
            isLost = true
            return [style.warning("· \(what)\(why); trying again in \(Self.seconds(milliseconds)).")]
        case .connecting, .closed: return []
        }
    }

    private mutating func lines(for presence: RoomPresence) -> [String] {
        let now = Dictionary(presence.members.map { ($0.user, $0) }, uniquingKeysWith: { $1 })
        defer {
            people = now
            count = presence.count
        }
        guard let before = people else {
            people = now
            count = presence.count
            return [who]
        }
        let came = now.keys.filter { before[$0] == nil }.sorted().map { ("+", $0, "is here") }
        let went = before.keys.filter { now[$0] == nil }.sorted().map { ("-", $0, "left") }
        let changed = now.values.filter { before[$0.user] != nil && before[$0.user]?.status != $0.status }
            .sorted { $0.user < $1.user }.map { ("~", $0.user, "is \(Printable.text($0.status))") }
        return (came + went + changed).map { style.dim("\($0) \(Printable.text($1)) \($2)") }
    }

    private mutating func lines(for message: ChatMessage) -> [String] {
        guard message.room == room else { return [] }
        var lines: [String] = []
        let (date, clock) = Self.local(message.timestamp)
        if date != day {
            if !day.isEmpty || date != Self.local(Int64(time(nil)) * 1000).date {
                lines.append(style.dim("— \(date) —"))
            }
            day = date
        }
        let name = style.name(Printable.text(message.from), of: message.from)
        let head = "\(style.dim("[\(clock)]")) \(name)\(style.dim(":")) "
        let indent = String(repeating: " ", count: clock.count + 3)
        let text = message.text ?? message.data ?? message.binary.map { "(\($0.count) bytes)" } ?? ""
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            lines.append((index == 0 ? head : indent) + Printable.text(String(line)))
        }
        return lines
    }

    private static func seconds(_ milliseconds: Int64) -> String {
        milliseconds < 1000 ? "less than a second" : "\((milliseconds + 999) / 1000) s"
    }

    /// In the time zone of this machine.
    private static func local(_ milliseconds: Int64) -> (date: String, clock: String) {
        var seconds = time_t(milliseconds / 1000)
        var parts = tm()
        guard localtime_r(&seconds, &parts) != nil else { return ("", "--:--") }
        func pad(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
        return (
            "\(parts.tm_year + 1900)-\(pad(parts.tm_mon + 1))-\(pad(parts.tm_mday))",
            "\(pad(parts.tm_hour)):\(pad(parts.tm_min))"
        )
    }
}
