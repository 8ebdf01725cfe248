import ChatCore
import NIOCore

/// What a configuration file says of one namespace; what it leaves out is nil.
struct NamespaceMembers: Sendable, Equatable {
    var allow: RoomActions?
    var historyMessages: Int?
    var historySeconds: Int?
    var presence: Bool?
    var messageBytes: Int?
    /// 0 lifts the limit.
    var messagesPerSecond: Int?
    var messagesBurst: Int?
    /// Where each of them stands, by name: `history.age`.
    var lines: [String: Int] = [:]

    static let names = ["allow", "history", "presence", "message_bytes", "messages_per_second", "messages_burst"]
    static let historyNames = ["messages", "age"]

    /// The rules with what stands here in the place of what stood there. A rate without a burst lets twice as many come
    /// at once.
    func applied(to rules: NamespaceRules) -> NamespaceRules {
        var rules = rules
        if let allow { rules.allows = allow }
        if let historyMessages { rules.historyMessages = historyMessages }
        if let historySeconds { rules.historyMilliseconds = Int64(historySeconds) * 1000 }
        if let presence { rules.showsPresence = presence }
        if let messageBytes { rules.messageBytes = messageBytes }
        if let messagesPerSecond {
            rules.messagesPerSecond = messagesPerSecond == 0 ? nil : messagesPerSecond
            rules.messageBurst = messagesPerSecond == 0 ? nil : 2 * messagesPerSecond
        }
        if let messagesBurst { rules.messageBurst = messagesBurst }
        return rules
    }
}

extension Namespaces {
    /// What the file leaves out of `default_namespace` is as the settings say; what it leaves out of a namespace is as
    /// `default_namespace` has it.
    init(_ settings: Settings, _ file: ConfigurationFile?) {
        var rules = NamespaceRules()
        rules.historyMessages = settings.historyMessages
        rules.historyMilliseconds = settings.history.nanoseconds / 1_000_000
        let standard = file?.defaultNamespace.applied(to: rules) ?? rules
        self.init(standard: standard, named: file?.namespaces.mapValues { $0.applied(to: standard) } ?? [:])
    }
}

/// `90s`, `30m`, `12h`, `7d`.
enum Age {
    static let allowed = "an age from 1s to 365d, like 90s, 30m, 12h or 7d"
    private static let units: [(name: Character, seconds: Int)] = [("d", 86400), ("h", 3600), ("m", 60), ("s", 1)]

    static func seconds(_ text: String) -> Int? {
        guard let age = Amounts.duration(text), age <= .hours(365 * 24) else { return nil }
        return Int(age.nanoseconds / 1_000_000_000)
    }

    /// In the largest unit of which it is a whole number; parts of a second are dropped.
    static func text(milliseconds: Int64) -> String {
        let seconds = Int(milliseconds / 1000)
        let unit = units.first { seconds % $0.seconds == 0 && seconds > 0 } ?? ("s", 1)
        return "\(seconds / unit.seconds)\(unit.name)"
    }
}
