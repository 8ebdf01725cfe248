import Admin
import ArgumentParser
import ClusterState
import NIOCore
import WireProtocol

struct AdminRoom: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "room", abstract: "One room, also an empty one.")

    @OptionGroup var options: AdminOptions
    @Argument(help: "The room's name.") var room: String

    func run() async throws {
        let room = try AdminNames.room(room)
        try await options.run { session in
            try await session.show {
                try await session.admin.room(room)
            } lines: { report in
                Self.table([report]).lines(width: session.width, style: session.style)
            }
        }
    }

    static func table(_ rooms: [RoomReport]) -> Table {
        var table = Table(columns: [
            .init(title: "room", isFlexible: true), .init(title: "users", isNumber: true),
            .init(title: "sessions", isNumber: true), .init(title: "seq", isNumber: true),
            .init(title: "stored", isNumber: true), .init(title: "last message"), .init(title: "epoch"),
        ])
        table.rows = rooms.map { room in
            [
                Table.Cell(room.room.string), Table.Cell(room.users), Table.Cell(room.sessions), Table.Cell(room.seq),
                Table.Cell(room.stored), Table.Cell(room.lastMessageAt.map { Amounts.time(milliseconds: $0) } ?? "-"),
                Table.Cell(room.epoch),
            ]
        }
        return table
    }
}

struct AdminPresence: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "presence", abstract: "Who is in a room, with which sessions, on which nodes.")

    @OptionGroup var options: AdminOptions
    @OptionGroup var watch: WatchOptions
    @Argument(help: "The room's name.") var room: String

    func run() async throws {
        let room = try AdminNames.room(room)
        try await options.run { session in
            try await session.show(watch) {
                try await session.admin.presence(room)
            } lines: { report in
                let visible = "\(report.count) user\(report.count == 1 ? "" : "s") in \(room)"
                guard !report.users.isEmpty else { return [visible] }
                var table = Table(columns: [
                    .init(title: "user", isFlexible: true), .init(title: "status"), .init(title: "session"),
                    .init(title: "node"), .init(title: "here for", isNumber: true),
                ])
                let now = Amounts.now()
                for user in report.users {
                    for (index, member) in user.sessions.enumerated() {
                        table.rows.append([
                            Table.Cell(index == 0 ? user.user.string : ""), Table.Cell(member.status.rawValue),
                            Table.Cell(member.session.string), Table.Cell(member.incarnation.description),
                            Table.Cell(Amounts.age(milliseconds: now - member.joinedAt)),
                        ])
                    }
                }
                return [visible, ""] + table.lines(width: session.width, style: session.style)
            }
        }
    }
}

struct AdminUser: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "user", abstract: "A user's sessions, their nodes and rooms.")

    @OptionGroup var options: AdminOptions
    @Argument(help: "The user's name.") var user: String

    func run() async throws {
        let user = try AdminNames.user(user)
        try await options.run { session in
            try await session.show {
                try await session.admin.user(user)
            } lines: { report in
                var table = Table(columns: [
                    .init(title: "session"), .init(title: "node"), .init(title: "room", isFlexible: true),
                    .init(title: "status"), .init(title: "here for", isNumber: true),
                ])
                let now = Amounts.now()
                for one in report.sessions {
                    let head = [Table.Cell(one.session.string), Table.Cell(one.incarnation.description)]
                    if one.rooms.isEmpty { table.rows.append(head + ["-", "-", "-"]) }
                    for (index, place) in one.rooms.enumerated() {
                        table.rows.append(
                            (index == 0 ? head : ["", ""]) + [
                                Table.Cell(place.room.string), Table.Cell(place.status.rawValue),
                                Table.Cell(Amounts.age(milliseconds: now - place.joinedAt)),
                            ])
                    }
                }
                return table.lines(width: session.width, style: session.style)
            }
        }
    }
}

struct AdminHistory: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "history", abstract: "A room's stored messages, oldest first.")

    @OptionGroup var options: AdminOptions
    @Argument(help: "The room's name.") var room: String

    @Option(help: "At most so many, 1 to 500.")
    var limit = 20

    @Option(help: "Only messages with a smaller seq: the last of them.")
    var before: Int64?

    @Option(help: "Only messages with a greater seq: the first of them.")
    var after: Int64?

    func validate() throws {
        guard (1...500).contains(limit) else { throw ValidationError("--limit must be from 1 to 500") }
        guard before == nil || after == nil else { throw ValidationError("--before and --after exclude each other") }
    }

    func run() async throws {
        let room = try AdminNames.room(room)
        let range = before.map { HistoryRange.before($0) } ?? after.map { .after($0) } ?? .latest
        try await options.run { session in
            try await session.show {
                try await session.admin.history(room, range: range, limit: limit)
            } lines: { report in
                guard !report.messages.isEmpty else {
                    return ["No message is stored in this range; the room's last has seq \(report.seq)."]
                }
                let width = String(report.messages.last?.seq ?? 0).count
                return report.messages.map { message in
                    MessageLine(seq: message.seq, ts: message.ts, members: Array(message.body.readableBytesView))
                        .text(seqWidth: width, style: session.style)
                }
            }
        }
    }
}

/// One message for a person: `42  2026-09-21 14:13:20Z  bob: hi`.
struct MessageLine {
    private let seq: Int64
    private let ts: Int64
    private var from = "?"
    private var content = ""

    /// - Parameter members: JSON members with `from` and `text` or `data` among them.
    init(seq: Int64, ts: Int64, members: [UInt8]) {
        self.seq = seq
        self.ts = ts
        let object = Array("{".utf8) + members + Array("}".utf8)
        var text: String?
        var data: String?
        object.withUnsafeBytes { bytes in
            _ = try? JSONScanner.scanObject(bytes) { (key, value) throws(JSONError) in
                let raw = String(decoding: bytes[value.range], as: UTF8.self)
                if JSONText.matches(key, in: bytes, "from") { from = JSONText.string(value, in: bytes) ?? raw }
                if JSONText.matches(key, in: bytes, "text") { text = JSONText.string(value, in: bytes) ?? raw }
                if JSONText.matches(key, in: bytes, "data") { data = raw }
            }
        }
        content = [text, data].compactMap(\.self).joined(separator: " ")
    }

    func text(seqWidth: Int, style: Style) -> String {
        let number = String(repeating: " ", count: max(0, seqWidth - String(seq).count)) + String(seq)
        return style.mark("\(number)  \(Amounts.time(milliseconds: ts))", .dim) + "  "
            + style.mark(Printable.text(from), .cyan) + ": " + Printable.text(content)
    }
}
