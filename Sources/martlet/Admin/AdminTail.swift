import Admin
import ArgumentParser
import ClusterState
import Glibc
import NIOCore
import RedisClient
import WireProtocol

struct AdminTail: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tail", abstract: "A room's messages, comings and goings as they happen, until Ctrl-C.",
        discussion:
            "With --json one object a line, as clients get them. What was missed while Redis was away is read afterwards."
    )

    @OptionGroup var options: AdminOptions
    @Argument(help: "The room's name.") var room: String

    @Option(help: "Show so many stored messages first, 0 to 500.")
    var last = 10

    func validate() throws {
        guard (0...500).contains(last) else { throw ValidationError("--last must be from 0 to 500") }
    }

    func run() async throws {
        let room = try AdminNames.room(room)
        try await options.run { session in
            _ = try await session.admin.room(room)
            AdminSession.endOnSignals()
            let channel =
                room.participants.map { session.keys.userChannel($0.0) } ?? session.keys.roomChannel(room)
            let (events, continuation) = AsyncStream<TailEvent>.makeStream()
            let client = session.client
            client.eventLoop.execute {
                TailEar(room: room, channel: channel, client: client, continuation: continuation).start()
            }
            var tail = TailPrinter(session: session, room: room, first: last)
            for await event in events { try await tail.handle(event) }
        }
    }
}

enum TailEvent: Sendable {
    /// Frames from here on are heard; what came before must be read.
    case hears
    case deaf
    case message(seq: Int64, ts: Int64, epoch: String, frame: [UInt8])
    case presence(joined: [String], left: [String], updated: [String], count: Int, pv: Int64)
}

/// Confined to the client's loop, as its subscriber is; events leave it through the stream. Once started it lives as long
/// as the process, whose only purpose it is.
private final class TailEar: RedisSubscriberDelegate {
    private let room: RoomName
    private let channel: String
    private let continuation: AsyncStream<TailEvent>.Continuation
    private let client: RedisClient
    private var subscriber: RedisSubscriber?
    /// The subscriber holds its delegate weakly.
    private var itself: TailEar?

    init(
        room: RoomName, channel: String, client: RedisClient, continuation: AsyncStream<TailEvent>.Continuation
    ) {
        self.room = room
        self.channel = channel
        self.client = client
        self.continuation = continuation
    }

    func start() {
        let probe = client.configuration.keyPrefix + ":tail:" + Base64URL.random(count: 12)
        let subscriber = RedisSubscriber(
            client: client, probeChannel: probe, delegate: self, logger: AdminSession.logger)
        self.subscriber = subscriber
        itself = self
        subscriber.start()
        _ = subscriber.subscribe(channel)
    }

    func subscriber(
        _ subscriber: RedisSubscriber, received payload: UnsafeRawBufferPointer, on channel: UnsafeRawBufferPointer
    ) {
        switch RelayMessage.parse(payload) {
        case .messages(let messages):
            for message in messages where message.room == nil || message.room == room.string {
                let frame = MessageText.frame(
                    room: room, epoch: message.epoch, seq: message.seq, tag: message.tag, body: message.body,
                    ts: message.ts, rawID: "")
                continuation.yield(.message(seq: message.seq, ts: message.ts, epoch: message.epoch, frame: frame))
            }
        case .presence(let presence):
            var joined: [String] = []
            var left: [String] = []
            var updated: [String] = []
            for change in presence.changes {
                switch change {
                case .joined(let json): joined.append(json)
                case .left(let json): left.append(json)
                case .status(let json): updated.append(json)
                }
            }
            continuation.yield(
                .presence(joined: joined, left: left, updated: updated, count: presence.count, pv: presence.pv))
        case .typing, .kick, .moved, nil:
            return
        }
    }

    func subscriberFinishedReading(_ subscriber: RedisSubscriber) {}
    func subscriberBecameDeaf(_ subscriber: RedisSubscriber) { continuation.yield(.deaf) }
    func subscriberHearsAgain(_ subscriber: RedisSubscriber) { continuation.yield(.hears) }
}

/// Shows each seq once, in order: what the log says first, then what is heard.
struct TailPrinter {
    private let session: AdminSession
    private let room: RoomName
    private let first: Int
    private var shown: Int64?
    private var epoch = ""

    init(session: AdminSession, room: RoomName, first: Int) {
        self.session = session
        self.room = room
        self.first = first
    }

    mutating func handle(_ event: TailEvent) async throws {
        switch event {
        case .hears:
            do {
                try await catchUp()
            } catch is RedisError {
                // Lost again before the log was read; the next `hears` tries again.
            }
        case .deaf:
            Terminal.write("martlet: Redis is gone; waiting for it\n", to: STDERR_FILENO)
        case .message(let seq, let ts, let epoch, let frame):
            if epoch != self.epoch {
                (self.epoch, shown) = (epoch, nil)
            }
            guard seq > shown ?? -1 else { return }
            shown = seq
            if session.json {
                write(frame)
            } else {
                line(seq, ts, Array(frame.dropFirst().dropLast()))
            }
        case .presence(let joined, let left, let updated, let count, let pv):
            if session.json {
                write(
                    ServerMessage.presence(
                        room: room, joined: joined, left: left, updated: updated, count: count, pv: pv))
            } else {
                let changes =
                    joined.map { "+ \(name($0)) joined" } + left.map { "- \(name($0)) left" }
                    + updated.map { "~ \(name($0)) is \(field("status", of: $0) ?? "?")" }
                let last = changes.count - 1
                session.print(
                    changes.enumerated().map { index, text in
                        session.style.mark(
                            Printable.text(text) + (index == last ? " (\(count) here)" : ""), .dim)
                    })
            }
        }
    }

    private mutating func catchUp() async throws {
        var after = shown
        while true {
            let report = try await session.admin.history(
                room, range: after.map { .after($0) } ?? .latest, limit: after == nil ? max(1, first) : 500)
            let isNew = report.epoch != epoch
            if isNew, after != nil {
                (epoch, shown, after) = (report.epoch, nil, nil)
                continue
            }
            epoch = report.epoch
            for message in after == nil && first == 0 ? [] : report.messages where message.seq > shown ?? -1 {
                if session.json {
                    write(
                        MessageText.frame(
                            room: room, epoch: report.epoch, seq: message.seq, tag: message.tag,
                            body: message.body.readableBytesView, ts: message.ts, rawID: ""))
                } else {
                    line(message.seq, message.ts, Array(message.body.readableBytesView))
                }
                shown = message.seq
            }
            if after == nil || report.messages.count < 500 {
                shown = max(shown ?? 0, report.seq)
                return
            }
            after = shown
        }
    }

    private func line(_ seq: Int64, _ ts: Int64, _ members: [UInt8]) {
        session.print([MessageLine(seq: seq, ts: ts, members: members).text(seqWidth: 4, style: session.style)])
    }

    private func write(_ frame: [UInt8]) {
        Terminal.write(String(decoding: frame, as: UTF8.self) + "\n", to: STDOUT_FILENO)
    }

    private func name(_ member: String) -> String { field("user", of: member) ?? "?" }

    private func field(_ name: String, of object: String) -> String? {
        var result: String?
        Array(object.utf8).withUnsafeBytes { bytes in
            _ = try? JSONScanner.scanObject(bytes) { (key, value) throws(JSONError) in
                if JSONText.string(key, in: bytes) == name { result = JSONText.string(value, in: bytes) }
            }
        }
        return result
    }
}
