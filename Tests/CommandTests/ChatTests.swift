import Testing

@testable import MartletClient
@testable import martlet

struct LineEditorTests {
    private func typed(_ bytes: some Sequence<UInt8>, into editor: inout LineEditor) -> [LineEditor.Action] {
        bytes.flatMap { editor.feed($0) }.filter { $0 != .typing }
    }

    @Test("Text, cursor keys, deletion and Enter make a line")
    func editing() {
        var editor = LineEditor()
        #expect(typed("helo\u{1b}[Dl\u{1b}[H>\u{1b}[F!?\u{7f}".utf8, into: &editor) == [])
        #expect(typed("\r".utf8, into: &editor) == [.line(">hello!")])
        #expect(typed("one two\u{17}\u{1}\u{b}x\u{15}y\r".utf8, into: &editor) == [.line("y")])
    }

    @Test("Characters of several bytes and marks count as one")
    func characters() {
        var editor = LineEditor()
        _ = typed("zoë 日 👍🏽e\u{301}".utf8, into: &editor)
        #expect(editor.text.count == 8)
        #expect(editor.visible(columns: 40).cursor == 10)
        #expect(typed("\u{7f}\u{7f}\r".utf8, into: &editor) == [.line("zoë 日 ")])
    }

    @Test("Up and down recall what was sent, and the draft")
    func recall() {
        var editor = LineEditor()
        _ = typed("a\rb\rdraft\u{1b}[A\u{1b}[A".utf8, into: &editor)
        #expect(String(editor.text) == "a")
        _ = typed("\u{1b}[B\u{1b}[B".utf8, into: &editor)
        #expect(String(editor.text) == "draft")
    }

    @Test("Ctrl-D on an empty line ends it, Ctrl-C interrupts it; other controls and bad bytes are dropped")
    func controls() {
        var editor = LineEditor()
        #expect(typed([4], into: &editor) == [.end])
        #expect(typed([3], into: &editor) == [.interrupt])
        #expect(typed([7, 0xFF, 0xC2, 0x9B, 0x61, 13], into: &editor) == [.line("a")])
        #expect(typed("\u{1b}[200~pasted\u{1b}[201~\r".utf8, into: &editor) == [.line("pasted")])
    }

    @Test("A long line scrolls with the cursor in view")
    func scrolling() {
        var editor = LineEditor()
        _ = typed(String(repeating: "abcdefghij", count: 10).utf8, into: &editor)
        let end = editor.visible(columns: 20)
        #expect(end.cursor < 20)
        #expect(end.line.count <= 20)
        _ = editor.feed(1)
        #expect(editor.visible(columns: 20) == ("abcdefghijabcdefghij", 0))
    }
}

struct ChatTranscriptTests {
    private func transcript() -> ChatTranscript { ChatTranscript(room: "general", style: ChatStyle(isOn: false)) }

    private func presence(_ users: [String]) -> MartletEvent {
        .presence(
            RoomPresence(room: "general", members: users.map { Member(user: $0, status: "online") }, count: users.count)
        )
    }

    @Test("Who comes and goes is said after the first list")
    func presenceLines() {
        var transcript = transcript()
        #expect(transcript.lines(for: presence(["alice"])) == ["1 here: alice"])
        #expect(transcript.lines(for: presence(["alice", "bob"])) == ["+ bob is here"])
        #expect(transcript.lines(for: presence(["bob"])) == ["- alice left"])
    }

    @Test("A loss, its end and a gap are said")
    func connection() {
        var transcript = transcript()
        _ = transcript.lines(for: .state(.online(node: "node-a", session: "s")))
        #expect(
            transcript.lines(for: .state(.waiting(milliseconds: 2500, reason: "slow")))
                == ["· The connection is lost (slow); trying again in 3 s."])
        #expect(
            transcript.lines(for: .state(.waiting(milliseconds: 10, reason: "")))
                == ["· Still no connection; trying again in less than a second."])
        #expect(
            transcript.lines(for: .state(.online(node: "node-b", session: "s"))) == ["· Connected again, to node-b."])
        #expect(
            transcript.lines(for: .gap(room: "general", from: 3, to: 4)) == [
                "· 2 messages could not be recovered here."
            ])
    }

    @Test("Nothing that others wrote reaches the terminal but as text")
    func controls() {
        var transcript = transcript()
        let events: [MartletEvent] = [
            presence(["a"]), presence(["a", "\u{1b}[2J"]), .left(room: "general", reason: "\u{7}"),
            .state(.online(node: "\u{1b}c", session: "s")), .state(.waiting(milliseconds: 1, reason: "\u{9b}1m")),
        ]
        for event in events {
            for line in transcript.lines(for: event) {
                #expect(line.unicodeScalars.allSatisfy { $0.value >= 0x20 && !(0x7F...0x9F).contains($0.value) })
            }
        }
    }

    @Test("A line with a slash is a command, with two a message")
    func commands() {
        #expect(ChatInputLine("  ") == .empty)
        #expect(ChatInputLine("hi  ") == .message("hi"))
        #expect(ChatInputLine("/quit") == .quit)
        #expect(ChatInputLine("/history 500") == .history(100))
        #expect(ChatInputLine("/busy") == .presence(.busy))
        #expect(ChatInputLine("//shrug") == .message("/shrug"))
        #expect(ChatInputLine("/nope x") == .unknown("/nope"))
    }

    @Test("In a pipe a line is a message whatever it begins with")
    func messagesOnly() {
        #expect(ChatInputLine("/quit", takesCommands: false) == .message("/quit"))
        #expect(ChatInputLine("//x", takesCommands: false) == .message("//x"))
        #expect(ChatInputLine("  ", takesCommands: false) == .empty)
    }
}

struct ChatScreenTests {
    @Test("In a pipe each line is one, also the last without a line feed")
    func lines() {
        let screen = PlainScreen()
        #expect(screen.edit(Array("a\nb".utf8)) == [.line("a")])
        #expect(screen.edit(Array("c\n/etc is full".utf8)) == [.line("bc")])
        #expect(screen.finish() == [.line("/etc is full")])
        #expect(screen.finish() == [])
    }

    @Test("The status is cut to the terminal's width; colours and marks take none of it")
    func truncation() {
        #expect(ChatStyle.truncated("\u{1b}[2mabcdef\u{1b}[0m", to: 3) == "\u{1b}[2mabc\u{1b}[0m")
        #expect(ChatStyle.truncated("日本a", to: 3) == "日")
        #expect(ChatStyle.truncated("a\u{200b}b", to: 2) == "a\u{200b}b")
    }
}
