import ChatCore
import WireProtocol

/// One line of `martlet config show`.
struct EffectiveValue: Equatable {
    /// As in a configuration file, with points between the levels.
    let name: String
    /// As it may be shown; nil where nothing is set.
    let value: String?
    let origin: String

    static func all(of settings: Settings) -> [EffectiveValue] {
        var values = Settings.table.map { row in
            let given = settings.given[row.key]
            return EffectiveValue(
                name: row.fileName, value: given?.shown ?? row.defaultText, origin: given?.origin ?? "default")
        }
        let standard = settings.file?.defaultNamespace ?? NamespaceMembers()
        values += rules(settings.namespaces.standard, standard, of: "default_namespace", in: settings)
        for (name, members) in (settings.file?.namespaces ?? [:]).sorted(by: { $0.key < $1.key }) {
            guard let resolved = settings.namespaces.named[name] else { continue }
            values += rules(resolved, members, of: "namespaces.\(name)", in: settings)
        }
        return values
    }

    private static func rules(
        _ rules: NamespaceRules, _ members: NamespaceMembers, of path: String, in settings: Settings
    ) -> [EffectiveValue] {
        let allowed = RoomActions.names.filter { rules.allows.contains($0.action) }.map(\.name)
        let values: [(String, String?)] = [
            ("allow", allowed.isEmpty ? "nothing" : allowed.joined(separator: ", ")),
            ("history.messages", String(rules.historyMessages)),
            ("history.age", Age.text(milliseconds: rules.historyMilliseconds)),
            ("presence", String(rules.showsPresence)),
            ("message_bytes", rules.messageBytes.map(String.init)),
            ("messages_per_second", rules.messagesPerSecond.map(String.init)),
            ("messages_burst", rules.messageBurst.map(String.init)),
        ]
        let takenFrom = ["history.messages": "history_messages", "history.age": "history_seconds"]
        return values.map { name, value in
            let origin: String
            if let line = members.lines[name], let file = settings.file {
                origin = "\(file.name):\(line)"
            } else if name == "messages_burst", members.messagesPerSecond != nil {
                origin = "messages_per_second"
            } else if path == "default_namespace" {
                origin = takenFrom[name] ?? "default"
            } else {
                origin = "default_namespace"
            }
            return EffectiveValue(name: "\(path).\(name)", value: value, origin: origin)
        }
    }

    /// `{"port":{"value":"8080","origin":"environment"},…}`; a value is a text, or null where nothing is set.
    static func json(_ values: [EffectiveValue]) -> String {
        var writer = JSONWriter()
        writer.beginObject()
        for value in values {
            writer.key(value.name)
            writer.beginObject()
            if let text = value.value {
                writer.member("value", text)
            } else {
                writer.key("value")
                writer.null()
            }
            writer.member("origin", value.origin)
            writer.endObject()
        }
        writer.endObject()
        return writer.string
    }
}
