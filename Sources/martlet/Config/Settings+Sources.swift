import ChatCore
import Glibc

extension Settings {
    /// A value that was set, for people: where it comes from, and as much of it as may be shown.
    struct Given: Sendable, Equatable {
        /// By which a sentence names the setting: its key, its flag, or its place and name in a file.
        let name: String
        let shown: String
        /// `environment`, a flag, or `FILE:LINE`.
        let origin: String
    }

    static let configKey = "MARTLET_CONFIG"
    static let rows = Dictionary(uniqueKeysWithValues: table.map { ($0.key, $0) })

    /// What this process was told: see `init(environment:flags:)`.
    static func read(flags: [String: String?] = [:]) throws(Failure) -> Settings {
        try Settings(environment: processEnvironment(), flags: flags)
    }

    /// - Parameters:
    ///   - environment: everything in it that begins with `MARTLET_` must be in the table.
    ///   - flags: values given on the command line, by key of the table; nil is a flag that was not given.
    /// - Throws: `Failure` with exit code 2 and one sentence that names key (or flag), value and what is allowed; of a
    ///   configuration file also line and column.
    init(
        environment: [String: String],
        flags: [String: String?] = [:]
    ) throws(Failure) {
        try Settings.refuseUnknownKeys(of: environment)
        var sources = Sources(environment: environment, flags: flags)
        if let row = Settings.rows[Settings.configKey], let path = sources.value(of: row)?.text {
            let file = try ConfigurationFile(path: path)
            if let problem = file.problems.first {
                let more = file.problems.count - 1
                let rest = more == 0 ? "" : " (and \(more) more: `martlet config check` tells all)"
                throw Failure(.usage, problem + rest)
            }
            sources.file = file
        }
        try self.init(sources)
    }

    init(_ sources: Sources) throws(Failure) {
        for row in Settings.table { try take(row, from: sources) }
        file = sources.file
        file?.settings = [:]
        namespaces = Namespaces(self, file)
        for key in sources.file?.namesOfOpenSecrets ?? [] {
            warnings.append("every user of this machine may read \(file?.name ?? ""), which holds \(key): chmod 600")
        }
        try checkMessageFitsOutbound()
        try checkNamespacesFitLimit()
    }

    private mutating func take(_ row: SettingRow, from sources: Sources) throws(Failure) {
        guard let found = sources.value(of: row) else { return }
        if let secret = row.fileOf.flatMap({ Settings.rows[$0] }), let direct = sources.value(of: secret) {
            // The one that comes from the stronger source counts; of two equals nobody knows which was meant.
            guard direct.rank != found.rank else {
                throw Failure(.usage, "\(direct.name) and \(found.name) are both set: take one of them away")
            }
            guard direct.rank < found.rank else { return }
        }
        if found.rank == .flag, row.holdsPassword(found.text) {
            throw Failure(
                .usage,
                "\(found.name) has a password, which every user of this machine sees in the list of processes: set"
                    + " \(row.key) or \(row.key)_FILE instead")
        }
        try row.store(found.text, as: found.name, in: &self)
        given[row.key] = Given(name: found.name, shown: row.shown(found.text), origin: found.origin)
        if let secret = row.fileOf.flatMap({ Settings.rows[$0] }), let text = try? SecretFile.read(found.text).text {
            given[secret.key] = Given(name: found.name, shown: secret.shown(text), origin: found.text)
        }
    }

    /// By which a sentence about several settings names one of them, so that it is found where it stands.
    func name(of key: String) -> String { given[key]?.name ?? key }

    /// The same of those among them that were set; the first, if none was.
    func names(ofGiven keys: String...) -> String {
        let set = keys.filter { given[$0] != nil }
        return (set.isEmpty ? [keys[0]] : set).map(name).joined(separator: ", ")
    }

    /// Else one message would take the budget of everybody in its room.
    private func checkMessageFitsOutbound() throws(Failure) {
        guard limitMessageBytes > limitOutboundBytes / 4 else { return }
        throw Failure(
            .usage,
            "\(name(of: "MARTLET_LIMIT_MESSAGE_BYTES")) is \(limitMessageBytes), but must be at most a quarter of"
                + " \(name(of: "MARTLET_LIMIT_OUTBOUND_BYTES")), which is \(limitOutboundBytes)")
    }

    /// A namespace cannot allow what the whole node refuses.
    private func checkNamespacesFitLimit() throws(Failure) {
        guard let file else { return }
        let all = [("default_namespace", file.defaultNamespace)] + file.namespaces.map { ("namespaces.\($0)", $1) }
        for (name, members) in all.sorted(by: { $0.0 < $1.0 }) {
            guard let bytes = members.messageBytes, bytes > limitMessageBytes else { continue }
            throw Failure(
                .usage,
                "\(Printable.text(file.name)):\(members.lines["message_bytes"] ?? 1): “\(name).message_bytes” is \(bytes),"
                    + " but must be at most limit_message_bytes, which is \(limitMessageBytes)")
        }
    }

    /// On stderr, for commands; servers have a log for them.
    func showWarnings() {
        for warning in warnings { Terminal.write("martlet: \(warning)\n", to: STDERR_FILENO) }
    }

    /// For commands that read none of the settings: a name that is wrong for one process is wrong for all.
    static func refuseUnknownKeys(of environment: [String: String]) throws(Failure) {
        for key in environment.keys.sorted() { try refuseUnknownKey(key, in: "the environment") }
    }

    static func refuseUnknownKey(_ key: String, in place: String) throws(Failure) {
        guard key.hasPrefix("MARTLET_"), rows[key] == nil else { return }
        let nearest = EditDistance.nearest(to: key, among: Settings.table.map(\.key)) ?? ""
        throw Failure(
            .usage, "\(place) has \(Printable.text(key)), which no setting is called; the nearest is \(nearest)")
    }

    /// The environment of this process; entries that are not UTF-8 are repaired, a name given twice counts once.
    static func processEnvironment() -> [String: String] {
        var result: [String: String] = [:]
        var cursor = environ
        while let entry = cursor.pointee {
            let text = String(cString: entry)
            if let equals = text.firstIndex(of: "=") {
                result[String(text[..<equals])] = String(text[text.index(after: equals)...])
            }
            cursor += 1
        }
        return result
    }
}

/// Where settings stand.
struct Sources: Sendable {
    /// A later one wins.
    enum Rank: Int, Sendable, Comparable {
        case file, environment, flag

        static func < (a: Rank, b: Rank) -> Bool { a.rawValue < b.rawValue }
    }

    struct Value: Sendable {
        let text: String
        let rank: Rank
        /// By which a sentence names it.
        let name: String
        let origin: String
    }

    var environment: [String: String] = [:]
    var flags: [String: String?] = [:]
    var file: ConfigurationFile?

    /// nil where nothing says anything; an empty text in the environment says nothing.
    func value(of row: SettingRow) -> Value? {
        if let text = flags[row.key] ?? nil {
            let name = row.flag ?? row.key
            return Value(text: text, rank: .flag, name: name, origin: name)
        }
        if let text = environment[row.key], !text.isEmpty {
            return Value(text: text, rank: .environment, name: row.key, origin: "environment")
        }
        guard let file, let value = file.settings[row.key] else { return nil }
        let place = "\(Printable.text(file.name)):\(value.line)"
        return Value(text: value.text, rank: .file, name: "\(place): “\(row.fileName)”", origin: place)
    }
}
