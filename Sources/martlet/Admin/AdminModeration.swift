import Admin
import ArgumentParser
import ChatCore
import ClusterState
import Glibc
import NIOCore
import WireProtocol

/// Whom an order means: exactly one.
struct TargetOptions: ParsableArguments {
    // The names of users, sessions and tokens may begin with a hyphen.
    @Option(parsing: .unconditional, help: "A user.") var user: String?
    @Option(parsing: .unconditional, help: "A session, as `admin sessions` shows it.") var session: String?
    @Option(parsing: .unconditional, help: "A token, by its jti.") var token: String?
    @Option(help: ArgumentHelp("An address or a CIDR block.", valueName: "ip[/len]")) var address: String?

    /// - Parameters:
    ///   - bare: what was given without an option, and the option that it stands for.
    func target(_ bare: String?, as standard: KeyPath<TargetOptions, String?>) throws(Failure) -> ModerationOrder.Target
    {
        var options = self
        if let bare {
            if standard == \.user { options.user = options.user == nil ? bare : nil }
            if standard == \.token { options.token = options.token == nil ? bare : nil }
        }
        let given = [options.user, options.session, options.token, options.address].compactMap(\.self)
        guard given.count == 1 else {
            throw Failure(.usage, "say whom the order means, once: a name, or --user, --session, --token or --address")
        }
        if let user = options.user { return .user(try AdminNames.user(user)) }
        if let session = options.session { return .session(try AdminNames.session(session)) }
        if let token = options.token {
            guard let target = ModerationOrder.Target.token(named: token) else {
                throw Failure(.usage, "a token's jti has 1 to 256 bytes without control characters")
            }
            return target
        }
        return .address(try AdminNames.address(options.address ?? ""))
    }
}

/// Who says it, and why.
struct SignatureOptions: ParsableArguments {
    @Option(parsing: .unconditional, help: "What the audit is told, and the clients whom the order meets.") var reason =
        ""
    @Option(help: "Who gives the order, for the audit; the user who runs this if nothing is said.") var by: String?

    /// - Parameter standard: the reason if none was given.
    func signature(_ standard: String = "") throws(Failure) -> OrderSignature {
        let reason = reason.isEmpty ? standard : reason
        guard reason.utf8.count <= 500, !reason.hasControlCharacters else {
            throw Failure(.usage, "a reason has at most 500 bytes and no control characters")
        }
        let by = by ?? Self.systemUser
        guard (1...128).contains(by.utf8.count), !by.hasControlCharacters else {
            throw Failure(.usage, "--by takes 1 to 128 bytes without control characters")
        }
        return OrderSignature(by: by, reason: reason)
    }

    private static var systemUser: String {
        guard let entry = getpwuid(getuid()), let name = entry.pointee.pw_name else { return "uid \(getuid())" }
        return String(cString: name)
    }
}

/// How long an order holds.
struct DurationOption: ParsableArguments {
    @Option(name: .customLong("for"), help: "How long, such as 10m, 2h or 7d; else until it is lifted.")
    var duration: String?

    func amount() throws(Failure) -> TimeAmount? {
        guard let duration else { return nil }
        guard let amount = Amounts.duration(duration) else {
            throw Failure(.usage, "--for takes a time from 1s to 3650d, such as 90s, 10m, 2h or 7d")
        }
        return amount
    }
}

extension AdminNames {
    static func session(_ text: String) throws(Failure) -> SessionID {
        guard let session = SessionID(text) else {
            throw Failure(.usage, "\(Printable.text(text)) is no session; `martlet admin sessions` shows them")
        }
        return session
    }

    static func address(_ text: String) throws(Failure) -> AddressRange {
        guard let range = AddressRange(text) else {
            throw Failure(.usage, "\(Printable.text(text)) is no address and no CIDR block such as 192.0.2.0/24")
        }
        return range
    }

    static func order(
        _ kind: ModerationOrder.Kind, _ target: ModerationOrder.Target, _ room: String?
    ) throws(Failure) -> ModerationOrder.Key {
        let room = try room.map { text throws(Failure) in try AdminNames.room(text) }
        guard let key = ModerationOrder.Key(kind, target, in: room) else {
            throw Failure(.usage, "--room is for orders about a user")
        }
        return key
    }
}

/// One order for people: `user bob in room x`.
enum OrderLine {
    static func subject(_ key: ModerationOrder.Key) -> String {
        "\(key.sort) \(key.name)" + (key.room.map { " in room \($0)" } ?? "")
    }

    /// `of user bob`, `from address 192.0.2.0/24`, `with token j`.
    static func origin(_ key: ModerationOrder.Key) -> String {
        let word =
            switch key.target {
            case .user, .session: "of"
            case .token: "with"
            case .address: "from"
            }
        return "\(word) \(subject(key))"
    }

    static func given(_ report: OrderReport, _ done: String, of object: String? = nil) -> [String] {
        let end = report.order.terms.until.map { "until \(Amounts.time(milliseconds: $0))" } ?? "until it is lifted"
        return [Printable.text("\(done) \(object ?? subject(report.order.key)), \(end).")]
    }
}

/// What bans and mutes have in common.
struct OrderArguments: ParsableArguments {
    @OptionGroup var options: AdminOptions
    @Argument(help: "A user's name; the same as --user.") var name: String?
    @OptionGroup var target: TargetOptions
    @Option(help: "In this room alone; of a user.") var room: String?
    @OptionGroup var signature: SignatureOptions

    func put(_ kind: ModerationOrder.Kind, for duration: DurationOption, _ done: String) async throws {
        let key = try AdminNames.order(kind, target.target(name, as: \.user), room)
        let (signature, amount) = (try signature.signature(), try duration.amount())
        try await options.run { session in
            if let room = key.room { _ = try session.rules(of: room) }
            try await session.show {
                try await session.admin.order(key, signature, for: amount)
            } lines: {
                OrderLine.given($0, done)
            }
        }
    }

    func lift(_ kind: ModerationOrder.Kind, _ done: String) async throws {
        let key = try AdminNames.order(kind, target.target(name, as: \.user), room)
        let signature = try signature.signature()
        try await options.run { session in
            try await session.show {
                try await session.admin.lift(key, signature)
            } lines: {
                [Printable.text("\(done) \(OrderLine.subject($0.key)).")]
            }
        }
    }
}

struct AdminBan: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ban",
        abstract: "Sends away and keeps out a user, session, token or address; or a user of one room.")

    @OptionGroup var order: OrderArguments
    @OptionGroup var duration: DurationOption

    func run() async throws { try await order.put(.ban, for: duration, "Banned") }
}

struct AdminUnban: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "unban", abstract: "Lifts a ban.")

    @OptionGroup var order: OrderArguments

    func run() async throws { try await order.lift(.ban, "Unbanned") }
}

struct AdminMute: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mute", abstract: "Lets a user, session, token or address say nothing, everywhere or in one room.")

    @OptionGroup var order: OrderArguments
    @OptionGroup var duration: DurationOption

    func run() async throws { try await order.put(.mute, for: duration, "Muted") }
}

struct AdminUnmute: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "unmute", abstract: "Lifts a mute.")

    @OptionGroup var order: OrderArguments

    func run() async throws { try await order.lift(.mute, "Unmuted") }
}

/// What a revocation and its end have in common.
struct RevokeArguments: ParsableArguments {
    @OptionGroup var options: AdminOptions
    @Argument(
        help:
            "A token's jti; the same as --token. Of a user or an address all tokens until now are meant: any iat up to 30 s from now."
    )
    var name: String?
    @OptionGroup var target: TargetOptions
    @OptionGroup var signature: SignatureOptions

    func key() throws -> ModerationOrder.Key {
        try AdminNames.order(.revoke, target.target(name, as: \.token), nil)
    }
}

struct AdminRevoke: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "revoke",
        abstract: "A token, all of a user or from an address until now, or a session are good no more.")

    @OptionGroup var order: RevokeArguments
    @OptionGroup var duration: DurationOption

    func run() async throws {
        let (key, signature) = (try order.key(), try order.signature.signature())
        let amount = try duration.amount()
        try await order.options.run { session in
            try await session.show {
                try await session.admin.order(key, signature, for: amount)
            } lines: {
                let many = key.sort == "user" || key.sort == "address"
                return many
                    ? OrderLine.given($0, "Revoked all tokens so far", of: OrderLine.origin(key))
                    : OrderLine.given($0, "Revoked")
            }
        }
    }
}

struct AdminUnrevoke: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "unrevoke", abstract: "Lifts a revocation: the tokens are good until they expire.")

    @OptionGroup var order: RevokeArguments

    func run() async throws {
        let (key, signature) = (try order.key(), try order.signature.signature())
        try await order.options.run { session in
            try await session.show {
                try await session.admin.lift(key, signature)
            } lines: {
                [Printable.text("Lifted the revocation of \(OrderLine.subject($0.key)).")]
            }
        }
    }
}
