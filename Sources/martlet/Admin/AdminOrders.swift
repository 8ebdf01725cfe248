import Admin
import ArgumentParser
import ChatCore
import ClusterState
import Glibc
import NIOCore
import WireProtocol

struct AdminPublish: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "publish", abstract: "Writes a message into a room, for everyone there and for its history.")

    @OptionGroup var options: AdminOptions
    @Argument(help: "The room's name.") var room: String
    @Argument(help: "The text.") var text: String

    @Option(name: .customLong("from"), help: "The user it comes from; needs no connection.")
    var sender = "operator"

    @Flag(help: "Make the room when there is none.")
    var create = false

    func run() async throws {
        let room = try AdminNames.room(room)
        let sender = try AdminNames.user(sender)
        try await options.run { session in
            let settings = session.settings
            guard !text.isEmpty, text.utf8.count <= settings.limitMessageBytes else {
                throw Failure(
                    .usage, "the text has \(text.utf8.count) bytes, but must have 1 to \(settings.limitMessageBytes)")
            }
            let rules = try session.rules(of: room)
            try await session.show {
                try await session.admin.publish(
                    to: room, text: text, from: sender, limits: HistoryLimits(rules),
                    creates: create)
            } lines: { report in
                ["Published to \(report.room) as seq \(report.seq)."]
            }
        }
    }
}

struct AdminKick: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "kick",
        abstract:
            "Closes the sessions of a user, a token or an address, or one; or puts a user out of one room.")

    @OptionGroup var options: AdminOptions
    @Argument(help: "A user's name; the same as --user.") var name: String?
    @OptionGroup var target: TargetOptions

    @Option(help: "Only out of this room; the connection stays. Of a user.")
    var room: String?

    @OptionGroup var signature: SignatureOptions

    /// How long the nodes have to do it.
    static let patience = TimeAmount.seconds(3)

    func run() async throws {
        let key = try AdminNames.order(.kick, target.target(name, as: \.user), room)
        let signature = try signature.signature("kicked by an operator")
        try await options.run { session in
            let report: KickReport
            switch key.target {
            case .user(let user):
                report = try await session.admin.kick(user, room: key.room, signature, patience: Self.patience)
            case .session(let id):
                report = try await session.admin.kick(session: id, signature, patience: Self.patience)
            case .address, .token:
                return try await session.show {
                    try await session.admin.kickOnce(key, signature)
                } lines: { report in
                    [Printable.text("All who are connected \(OrderLine.origin(report.order.key)) are closed.")]
                }
            }
            if session.json { session.print(report) }
            let all = report.sessions.count
            let place = key.room.map { "room \($0)" } ?? "the cluster"
            guard report.remaining.isEmpty else {
                let end = key.room == nil ? "they end with their node, and cannot be resumed" : "their node may be down"
                throw Failure(
                    .failed,
                    "the order went out, but \(report.remaining.count) of \(all) session\(all == 1 ? "" : "s") of"
                        + " \(report.user) are in \(place) still after 3 s: \(end)"
                        + " (\(report.remaining.prefix(5).map(\.string).joined(separator: ", "))"
                        + (report.remaining.count > 5 ? " and more)" : ")"))
            }
            if !session.json {
                session.print([
                    "\(all) session\(all == 1 ? "" : "s") of \(Printable.text(report.user.string)) left \(place)."
                ])
            }
        }
    }
}

struct AdminDrain: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "drain", abstract: "Asks a node to move its clients to the others and end.")

    @OptionGroup var options: AdminOptions
    @Argument(help: "A node's name, or one incarnation of it (node-a.7).") var node: String
    @OptionGroup var signature: SignatureOptions

    func run() async throws {
        let signature = try signature.signature()
        try await options.run { session in
            let (report, isNoted) = try await session.admin.drain(node, signature)
            if !isNoted { session.warnOfAudit() }
            guard !session.json else { return session.print(report) }
            let count = report.sessions
            session.print(
                ["\(report.incarnation) was asked to drain; it moves \(count) session\(count == 1 ? "" : "s")."]
                    + report.lateness)
        }
    }
}

struct AdminUndrain: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "undrain", abstract: "Takes drain back while the node runs: who has not left it stays.")

    @OptionGroup var options: AdminOptions
    @Argument(help: "A node's name, or one incarnation of it (node-a.7).") var node: String
    @OptionGroup var signature: SignatureOptions

    func run() async throws {
        let signature = try signature.signature()
        try await options.run { session in
            let (report, wasOrdered, isNoted) = try await session.admin.undrain(node, signature)
            if !isNoted { session.warnOfAudit() }
            guard !session.json else { return session.print(report) }
            let count = report.sessions
            session.print(
                [
                    wasOrdered
                        ? "\(report.incarnation) takes clients again; \(count) session\(count == 1 ? " is" : "s are") still there."
                        : "\(report.incarnation) was not asked to drain."
                ] + report.lateness)
        }
    }
}

extension AdminSession {
    fileprivate func warnOfAudit() {
        Terminal.write(
            "martlet: the node has the order, but Redis did not take the line for `martlet admin audit`\n",
            to: STDERR_FILENO)
    }
}

extension NodeReport {
    /// What to say of an order to a node that cannot have heard it yet.
    fileprivate var lateness: [String] {
        guard leaseMilliseconds < 0 else { return [] }
        return [
            "But its lease ended \(-leaseMilliseconds / 1000) s ago: if it still runs, it hears of this when it reaches Redis again."
        ]
    }
}
