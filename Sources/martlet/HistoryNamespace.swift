import ChatCore
import NIOCore
import WireProtocol

/// One entry of `MARTLET_HISTORY_NAMESPACES`: `news=10000/7d`.
struct HistoryNamespace: Sendable, Equatable {
    static let form =
        "NAMESPACE=MESSAGES or NAMESPACE=MESSAGES/AGE, with 0 to 1000000 messages and an age from 1s to 365d, like 90s, 30m,"
        + " 12h or 7d"

    let name: String
    let messages: Int
    /// nil: as long as `MARTLET_HISTORY_SECONDS` says.
    let age: TimeAmount?

    init(name: String, messages: Int, age: TimeAmount? = nil) {
        self.name = name
        self.messages = messages
        self.age = age
    }

    /// nil when the text has another form. The name has characters of room names but `:`.
    init?(_ text: String) {
        let parts = text.split(separator: "=", omittingEmptySubsequences: false)
        guard parts.count == 2, let name = try? RoomName(validating: String(parts[0])), name.namespace == nil else {
            return nil
        }
        let limits = parts[1].split(separator: "/", omittingEmptySubsequences: false)
        guard let messages = limits.first.flatMap({ SettingSyntax.wholeNumber(String($0)) }), messages <= 1_000_000
        else { return nil }
        var age: TimeAmount?
        if limits.count > 1 {
            guard limits.count == 2, let given = Self.age(limits[1]) else { return nil }
            age = given
        }
        self.init(name: name.string, messages: messages, age: age)
    }

    private static func age(_ text: Substring) -> TimeAmount? {
        let units: [Character: Int] = ["s": 1, "m": 60, "h": 3600, "d": 86400]
        guard let unit = text.last.flatMap({ units[$0] }),
            let number = SettingSyntax.wholeNumber(String(text.dropLast())), (1...31_536_000).contains(number),
            number * unit <= 31_536_000
        else { return nil }
        return .seconds(Int64(number * unit))
    }

    /// - Returns: nil when a part has another form, or a namespace stands there twice; `problem` then says which.
    static func list(_ text: String) -> [HistoryNamespace]? {
        let parts = Self.parts(text)
        let list = parts.compactMap(HistoryNamespace.init)
        return list.count == parts.count && Set(list.map(\.name)).count == list.count ? list : nil
    }

    static func problem(_ text: String) -> String {
        var names: Set<String> = []
        for part in parts(text) {
            guard let entry = HistoryNamespace(part) else { return "“\(Printable.text(part))” must be \(form)" }
            guard names.insert(entry.name).inserted else { return "the namespace \(entry.name) stands there twice" }
        }
        return ""
    }

    private static func parts(_ text: String) -> [String] {
        text.split(separator: ",", omittingEmptySubsequences: false).map(SettingSyntax.trim)
    }
}

extension Namespaces {
    init(_ settings: Settings) {
        func rules(_ messages: Int, _ age: TimeAmount) -> NamespaceRules {
            var rules = NamespaceRules()
            rules.historyMessages = messages
            rules.historyMilliseconds = age.nanoseconds / 1_000_000
            return rules
        }
        self.init(
            standard: rules(settings.historyMessages, settings.history),
            named: Dictionary(
                settings.historyNamespaces.map { ($0.name, rules($0.messages, $0.age ?? settings.history)) },
                uniquingKeysWith: { $1 }))
    }
}
