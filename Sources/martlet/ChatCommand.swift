import ArgumentParser
import Glibc
import MartletClient
import WireProtocol

struct ChatCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "chat",
        abstract: "Chat in a room from the terminal; reconnects by itself.",
        discussion: """
            On a terminal: type a line and press Enter; /help lists the commands. Otherwise each line of standard input \
            is a message, also one that begins with a slash, each line of standard output an event, and the end of input ends the chat once every message \
            is acknowledged.

            A token that says who you are stands in MARTLET_CHAT_TOKEN, or in the file that --token-file names: not in a \
            flag, as those stand in the list of processes.
            """
    )

    @Option(
        help: """
            Where the router, or a node, takes WebSockets: ws:// or wss://. By default that of the `martlet dev` which runs \
            in this directory, else ws://127.0.0.1:8080/ws.
            """)
    var url: String?

    @Option(help: "A file of PEM certificates to trust for wss:// instead of the system's.")
    var cacert: String?

    @Option(help: "Your name there, where MARTLET_AUTH=none; by default the name you are logged in with.")
    var user: String?

    @Option(help: "A file with the token that says who you are; instead of --user.")
    var tokenFile: String?

    @Argument(help: "The room to join.")
    var room = "general"

    func run() async throws {
        let name = user ?? Self.loginName()
        do {
            _ = try RoomName(validating: room)
        } catch {
            throw Failure(.usage, error.message)
        }
        let dev = url == nil ? DevFolder.here().running() : nil
        let url = url ?? dev?.chatURL ?? "ws://127.0.0.1:8080/ws"
        let settings = try Settings.read(flags: ["MARTLET_CHAT_TOKEN_FILE": tokenFile])
        settings.showWarnings()
        guard user == nil || settings.chatToken == nil else {
            throw Failure(
                .usage,
                "--user and \(settings.name(of: "MARTLET_CHAT_TOKEN")) both say who you are: leave one of them out")
        }
        let client: MartletClient
        do {
            client = try MartletClient(
                url: url, credential: settings.chatToken.map { .token($0) } ?? .user(name),
                tls: .init(trustRoots: (cacert ?? dev?.authority).map { .file($0) } ?? .system))
        } catch {
            throw Failure(.usage, error.message)
        }
        try await Chat(client: client, room: room, url: url).run()
    }

    private static func loginName() -> String {
        getenv("USER").flatMap { String(validatingCString: $0) }.flatMap { $0.isEmpty ? nil : $0 } ?? "guest"
    }
}

/// One run of `martlet chat`: what comes from the keyboard, the client and the signals, one after the other.
private final class Chat {
    private enum Input: Sendable {
        case bytes([UInt8])
        case endOfInput
        case event(MartletEvent)
        case joined(failure: String?)
        /// `nil` when it could not be read.
        case history(HistoryPage?)
        case sent(failure: String?)
        case resized
        case terminated
        /// Some time at the end in which an ack could have come.
        case waited
    }

    private let client: MartletClient
    private let room: String
    private let url: String
    private let screen: any ChatScreen
    private let inputs: AsyncStream<Input>
    private let feed: AsyncStream<Input>.Continuation
    private var transcript: ChatTranscript
    /// Lines that were typed before the room was joined.
    private var early: [String]? = []
    /// What happened while the room's last messages are being read, to stand behind them.
    private var held: [MartletEvent]?
    private var hasHistory = false
    private var unacknowledged = 0
    private var failures = 0
    private var isEnding = false
    /// When a message was acknowledged or refused for the last time, or the waiting for that began.
    private var answeredAt = ContinuousClock.now

    private static let patience = Duration.seconds(30)

    init(client: MartletClient, room: String, url: String) {
        self.client = client
        self.room = room
        self.url = url
        let isInteractive = isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1
        let colour = Terminal.wantsColour(STDOUT_FILENO, environment: Settings.processEnvironment())
        screen = isInteractive ? TerminalScreen(colour: colour) : PlainScreen()
        transcript = ChatTranscript(room: room, style: ChatStyle(isOn: colour))
        (inputs, feed) = AsyncStream.makeStream(of: Input.self)
    }

    func run() async throws {
        screen.start()
        defer { screen.end() }
        screen.setStatus("connecting to \(Printable.text(url)) …", waiting: 0)
        listen()
        client.connect()
        var goesOn = true
        for await input in inputs {
            if goesOn {
                goesOn = try take(input)
                if !goesOn { client.close() }
            } else if case .event(let event) = input {
                // What happened before the end is still shown.
                if case .state(.closed) = event { break }
                show(event)
            } else if case .history = input {
                _ = try take(input)
            }
        }
        release()
        if failures > 0 {
            let what = failures == 1 ? "1 message was" : "\(failures) messages were"
            throw Failure(.failed, "\(what) not acknowledged as stored")
        }
    }

    private func listen() {
        let client = client
        let room = room
        let feed = feed
        let events = client.events()
        Task { for await event in events { feed.yield(.event(event)) } }
        Task {
            do {
                try await client.join(room)
                feed.yield(.joined(failure: nil))
            } catch {
                feed.yield(.joined(failure: "\(error)"))
            }
        }
        Threads.detach {
            var buffer = [UInt8](repeating: 0, count: 4096)
            while true {
                let count = read(STDIN_FILENO, &buffer, buffer.count)
                if count > 0 {
                    feed.yield(.bytes(Array(buffer[..<count])))
                } else if count == 0 || errno != EINTR {
                    feed.yield(.endOfInput)
                    return
                }
            }
        }
        Signals.handle([SIGTERM, SIGINT, SIGHUP, SIGWINCH]) { number in
            feed.yield(number == SIGWINCH ? .resized : .terminated)
        }
    }

    /// - Returns: whether the chat goes on.
    private func take(_ input: Input) throws -> Bool {
        switch input {
        case .bytes(let bytes): return take(bytes)
        case .endOfInput: return endOfInput()
        case .resized: screen.redraw()
        case .terminated: return giveUp()
        case .waited: return waitForAcks()
        case .sent(let failure):
            unacknowledged -= 1
            answeredAt = .now
            if let failure {
                failures += 1
                screen.print(transcript.notice("Not sent: \(failure)"))
            }
            showStatus()
            return !(isEnding && unacknowledged == 0)
        case .joined(let failure):
            if let failure { throw Failure(.failed, "the room \(room) cannot be joined: \(failure)") }
            for text in early ?? [] { post(text) }
            early = nil
        case .history(let page):
            if let page { for line in transcript.history(page.messages) { screen.print(line) } }
            release()
        case .event(let event):
            show(event)
            if case .state(.closed(_, let reason)) = event {
                throw Failure(.failed, "the server ended the connection: \(Printable.text(reason))")
            }
            showStatus()
        }
        return true
    }

    private func show(_ event: MartletEvent) {
        if case .state = event {
            // Said at once: it is about this window, not about the room.
        } else if held != nil {
            held?.append(event)
            return
        }
        for line in transcript.lines(for: event) { screen.print(line) }
        if case .joined(let joined) = event, !hasHistory {
            hasHistory = true
            held = []
            readHistory(before: joined.seq + 1, limit: 20)
        }
    }

    private func release() {
        let events = held ?? []
        held = nil
        for event in events { show(event) }
    }

    private func showStatus() {
        screen.setStatus(transcript.status, waiting: unacknowledged)
    }

    private func take(_ bytes: [UInt8]) -> Bool {
        for action in screen.edit(bytes) {
            switch action {
            case .line(let line):
                if !enter(line) { return false }
            case .typing: client.setTyping(true, in: room)
            case .end: return endOfInput()
            case .interrupt: return giveUp()
            }
        }
        return true
    }

    private func endOfInput() -> Bool {
        for case .line(let line) in screen.finish() where !enter(line) { return false }
        guard !isEnding else { return true }
        isEnding = true
        answeredAt = .now
        return waitForAcks()
    }

    /// At the end, while acks come.
    private func waitForAcks() -> Bool {
        guard unacknowledged > 0 else { return false }
        let deadline = answeredAt + Self.patience
        guard .now < deadline else { return giveUp() }
        Task { [feed] in
            try? await Task.sleep(until: deadline)
            feed.yield(.waited)
        }
        return true
    }

    /// Ends at once; what is not acknowledged counts as not stored.
    private func giveUp() -> Bool {
        failures += unacknowledged
        return false
    }

    /// - Returns: whether the chat goes on.
    private func enter(_ line: String) -> Bool {
        switch ChatInputLine(line, takesCommands: screen.takesCommands) {
        case .empty: return true
        case .message(let text): send(text)
        case .help: for line in transcript.help { screen.print(line) }
        case .who: screen.print(transcript.who)
        case .history(let limit): readHistory(limit: limit)
        case .presence(let presence): client.setPresence(presence)
        case .quit: return endOfInput()
        case .unknown(let name): screen.print(transcript.notice("There is no \(name); /help lists what there is."))
        }
        return true
    }

    private func send(_ text: String) {
        unacknowledged += 1
        showStatus()
        if early == nil { post(text) } else { early?.append(text) }
    }

    private func post(_ text: String) {
        let feed = feed
        let message = client.post(text, to: room)
        Task {
            do {
                try await message.acknowledgement()
                feed.yield(.sent(failure: nil))
            } catch {
                feed.yield(.sent(failure: "\(error)"))
            }
        }
    }

    private func readHistory(before: Int64? = nil, limit: Int) {
        Task { [client, room, feed] in
            // When the connection went, its loss is said already, and /history asks again.
            feed.yield(.history(try? await client.history(of: room, before: before, limit: limit)))
        }
    }
}
