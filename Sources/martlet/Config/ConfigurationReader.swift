import ChatCore
import WireProtocol

/// Reads the text of a `ConfigurationFile`. It goes on behind a mistake, but for one of JSON's own grammar.
struct ConfigurationReader {
    /// One member of an object, with the name by which people are told of it: `namespaces.team.allow`.
    struct Member {
        let name: String
        let key: String
        let offset: Int
        let value: JSONValue
    }

    let bytes: UnsafeRawBufferPointer
    private(set) var file: ConfigurationFile
    /// Where each line begins.
    private let lineStarts: [Int]
    /// Takes the values that are checked.
    private var scratch = Settings()

    static func read(_ bytes: [UInt8], name: String) -> ConfigurationFile {
        bytes.withUnsafeBytes { bytes in
            var reader = ConfigurationReader(bytes, name: name)
            reader.readAll()
            return reader.file
        }
    }

    private init(_ bytes: UnsafeRawBufferPointer, name: String) {
        self.bytes = bytes
        file = ConfigurationFile(name: name)
        lineStarts = [0] + bytes.indices.filter { bytes[$0] == UInt8(ascii: "\n") }.map { $0 + 1 }
    }

    private mutating func readAll() {
        for (index, start) in lineStarts.enumerated() {
            let end = index + 1 < lineStarts.count ? lineStarts[index + 1] : bytes.count
            guard String(validating: bytes[start..<end], as: UTF8.self) != nil else {
                mistake(at: start, "this line is not UTF-8 text")
                return
            }
        }
        do throws(JSONError) {
            try members(of: nil) { (reader, member) throws(JSONError) in try reader.topLevel(member) }
            checkBursts()
        } catch {
            grammar(error)
        }
        file.mistakes.sort { ($0.line, $0.column) < ($1.line, $1.column) }
    }

    // MARK: Members

    private mutating func topLevel(_ member: Member) throws(JSONError) {
        switch member.key {
        case "default_namespace":
            file.defaultNamespace = try namespace(member)
        case "namespaces":
            guard isObject(member) else { return }
            try members(of: member) { (reader, entry) throws(JSONError) in
                let members = try reader.namespace(entry)
                guard (try? RoomName(validating: entry.key)) != nil, !entry.key.contains(":") else {
                    let allowed = "1 to 128 characters of A-Z a-z 0-9 _ . @ / -"
                    reader.mistake(
                        at: entry.offset, "“\(entry.name)” cannot be a namespace: its name must be \(allowed)")
                    return
                }
                reader.file.namespaces[entry.key] = members
            }
        default:
            setting(member)
        }
    }

    private mutating func setting(_ member: Member) {
        guard let row = ConfigurationFile.rows[member.key] else {
            unknown(member, among: ConfigurationFile.rows.keys.sorted() + ["namespaces", "default_namespace"])
            return
        }
        guard let text = row.form.text(of: member.value, in: bytes) else {
            mistake(
                at: member.value.range.lowerBound,
                "“\(member.name)” is \(kind(member.value)), but must be \(row.allowed)")
            return
        }
        do throws(Failure) {
            try row.store(text, as: "“\(member.name)”", in: &scratch)
            file.lines[row.key] = line(of: member.offset)
            file.settings[row.key] = ConfigurationFile.Value(text: text, line: line(of: member.offset))
        } catch {
            mistake(at: member.value.range.lowerBound, error.sentence)
        }
    }

    private mutating func namespace(_ member: Member) throws(JSONError) -> NamespaceMembers {
        var rules = NamespaceMembers()
        guard isObject(member) else { return rules }
        try members(of: member) { (reader, entry) throws(JSONError) in try reader.rule(entry, &rules) }
        return rules
    }

    private mutating func rule(_ entry: Member, _ rules: inout NamespaceMembers) throws(JSONError) {
        switch entry.key {
        case "allow": rules.allow = try actions(entry)
        case "presence": rules.presence = boolean(entry)
        case "message_bytes": rules.messageBytes = number(entry, 1...16_777_216)
        case "messages_per_second": rules.messagesPerSecond = number(entry, 0...1_000_000)
        case "messages_burst": rules.messagesBurst = number(entry, 1...1_000_000)
        case "history":
            guard isObject(entry) else { return }
            try members(of: entry) { (reader, part) throws(JSONError) in
                switch part.key {
                case "messages": rules.historyMessages = reader.number(part, 0...1_000_000)
                case "age": rules.historySeconds = reader.age(part)
                default: reader.unknown(part, among: NamespaceMembers.historyNames)
                }
                rules.lines["history." + part.key] = reader.line(of: part.offset)
            }
        default: unknown(entry, among: NamespaceMembers.names)
        }
        rules.lines[entry.key] = line(of: entry.offset)
    }

    private mutating func checkBursts() {
        let all = file.namespaces.map { ("namespaces.\($0)", $1) } + [("default_namespace", file.defaultNamespace)]
        for (name, rules) in all where rules.messagesBurst != nil {
            guard rules.messagesPerSecond ?? file.defaultNamespace.messagesPerSecond ?? 0 == 0 else { continue }
            let line = rules.lines["messages_burst"] ?? 1
            mistake(
                at: lineStarts[line - 1], "“\(name).messages_burst” needs messages_per_second, of which it is the burst"
            )
        }
    }

    /// Calls `body` for each member of the object once: the second of one name is a mistake.
    ///
    /// - Parameter parent: nil for the object that the text is.
    private mutating func members(
        of parent: Member?, _ body: (inout ConfigurationReader, Member) throws(JSONError) -> Void
    ) throws(JSONError) {
        var seen: [String: Int] = [:]
        try JSONScanner.scanObject(bytes, in: parent?.value.range) { (key, value) throws(JSONError) in
            let text = JSONText.string(key, in: bytes, replacingLoneSurrogates: "\u{FFFD}") ?? ""
            let name = (parent.map { $0.name + "." } ?? "") + Printable.short(text)
            let offset = key.range.lowerBound
            if let first = seen[text] {
                mistake(at: offset, "“\(name)” stands here a second time; the first is on line \(first)")
                return
            }
            seen[text] = line(of: offset)
            try body(&self, Member(name: name, key: text, offset: offset, value: value))
        }
    }

    // MARK: Values

    private mutating func isObject(_ member: Member) -> Bool {
        if member.value.kind == .object { return true }
        mistake(
            at: member.value.range.lowerBound, "“\(member.name)” is \(kind(member.value)), but must be an object: { … }"
        )
        return false
    }

    private mutating func number(_ member: Member, _ range: ClosedRange<Int64>) -> Int? {
        if let number = JSONText.integer(member.value, in: bytes), range.contains(number) { return Int(number) }
        refuse(member, "a whole number from \(range.lowerBound) to \(range.upperBound)")
        return nil
    }

    private mutating func boolean(_ member: Member) -> Bool? {
        if case .bool(let value) = member.value.kind { return value }
        refuse(member, "true or false")
        return nil
    }

    private mutating func age(_ member: Member) -> Int? {
        if let seconds = JSONText.string(member.value, in: bytes).flatMap(Age.seconds) { return seconds }
        refuse(member, Age.allowed)
        return nil
    }

    private mutating func actions(_ member: Member) throws(JSONError) -> RoomActions? {
        let names = RoomActions.names.map(\.name)
        guard member.value.kind == .array else {
            refuse(member, "a list of " + names.joined(separator: ", "))
            return nil
        }
        var actions: RoomActions = []
        try JSONScanner.scanArray(bytes, in: member.value.range) { (element) throws(JSONError) in
            let text = JSONText.string(element, in: bytes)
            if let action = text.flatMap(RoomActions.init(name:)) {
                actions.formUnion(action)
            } else {
                let nearest = nearest(to: text, among: names)
                mistake(
                    at: element.range.lowerBound,
                    "“\(member.name)” has \(shown(element)), but may have \(names.joined(separator: ", "))\(nearest)")
            }
        }
        return actions
    }

    // MARK: What is wrong

    private mutating func unknown(_ member: Member, among names: [String]) {
        guard file.mistakes.count < ConfigurationFile.maximumMistakes else { return }
        var bare = member.key.lowercased()
        if bare.hasPrefix("martlet_") { bare.removeFirst("martlet_".count) }
        mistake(at: member.offset, "nothing is called “\(member.name)”\(nearest(to: bare, among: names))")
    }

    private func nearest(to text: String?, among names: [String]) -> String {
        guard let text, text.utf8.count <= 64, let nearest = EditDistance.nearest(to: text, among: names) else {
            return ""
        }
        return "; the nearest is “\(nearest)”"
    }

    private mutating func refuse(_ member: Member, _ allowed: String) {
        mistake(
            at: member.value.range.lowerBound, "“\(member.name)” is \(shown(member.value)), but must be \(allowed)")
    }

    private mutating func grammar(_ error: JSONError) {
        switch error {
        case .unexpectedEnd:
            mistake(at: bytes.count, "the text ends here, before the object that it must be: { … }")
        case .unexpectedByte(let offset):
            mistake(at: offset, "this is no JSON: “\(character(at: offset))” cannot stand here")
        case .tooDeep:
            mistake(at: 0, "this is nested deeper than \(JSONScanner.maximumDepth) levels")
        }
    }

    private mutating func mistake(at offset: Int, _ sentence: String) {
        guard file.mistakes.count < ConfigurationFile.maximumMistakes else { return }
        let line = line(of: offset)
        // Characters are counted by their first bytes.
        let column = bytes[lineStarts[line - 1]..<min(offset, bytes.count)].count { $0 & 0xC0 != 0x80 } + 1
        file.mistakes.append(ConfigurationFile.Mistake(line: line, column: column, sentence: sentence))
    }

    private func line(of offset: Int) -> Int {
        var (low, high) = (0, lineStarts.count)
        while high - low > 1 {
            let middle = (low + high) / 2
            if lineStarts[middle] <= offset { low = middle } else { high = middle }
        }
        return low + 1
    }

    private func character(at offset: Int) -> String {
        Printable.text(
            String(decoding: bytes[offset..<min(offset + 4, bytes.count)], as: UTF8.self).prefix(1).description)
    }

    private func kind(_ value: JSONValue) -> String {
        switch value.kind {
        case .string: "a text"
        case .number: "a number"
        case .bool(let value): "\(value)"
        case .null: "null"
        case .array: "a list"
        case .object: "an object"
        }
    }

    /// Never used for what may be a secret.
    private func shown(_ value: JSONValue) -> String {
        switch value.kind {
        case .string:
            "“\(Printable.short(JSONText.string(value, in: bytes, replacingLoneSurrogates: "\u{FFFD}") ?? ""))”"
        case .number: Printable.short(String(decoding: bytes[value.range], as: UTF8.self))
        case .bool, .null, .array, .object: kind(value)
        }
    }
}

extension SettingRow.Form {
    /// The value as it would stand in the environment; nil when it has another type.
    func text(of value: JSONValue, in bytes: UnsafeRawBufferPointer) -> String? {
        switch (self, value.kind) {
        case (_, .string): JSONText.string(value, in: bytes)
        case (.number, .number): String(decoding: bytes[value.range], as: UTF8.self)
        case (.toggle, .bool(let isOn)): isOn ? "on" : "off"
        case (.list, .array): list(value, in: bytes)
        default: nil
        }
    }

    private func list(_ value: JSONValue, in bytes: UnsafeRawBufferPointer) -> String? {
        var texts: [String?] = []
        // Its grammar was checked with that of the text around it.
        try? JSONScanner.scanArray(bytes, in: value.range) { (element) throws(JSONError) in
            texts.append(JSONText.string(element, in: bytes))
        }
        let strings = texts.compactMap(\.self)
        return strings.count == texts.count ? strings.joined(separator: ",") : nil
    }
}
