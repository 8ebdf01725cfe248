import WireProtocol

/// What stands in a configuration file (JSON, RFC 8259): settings by their names in lower case without `MARTLET_`,
/// `namespaces`, and `default_namespace`. Names and values in it were checked; what is wrong is in `mistakes`.
struct ConfigurationFile: Sendable, Equatable {
    struct Value: Sendable, Equatable {
        let text: String
        let line: Int
    }

    struct Mistake: Sendable, Equatable {
        /// From 1, as the column, which counts characters.
        let line: Int
        let column: Int
        /// Without the place.
        let sentence: String
    }

    static let largest = 1_048_576
    /// More are not told of one file.
    static let maximumMistakes = 100

    /// As it was given: the path.
    let name: String
    /// By the key of the table of settings.
    var settings: [String: Value] = [:]
    /// Where each of them stands.
    var lines: [String: Int] = [:]
    var defaultNamespace = NamespaceMembers()
    var namespaces: [String: NamespaceMembers] = [:]
    /// In the order of the text.
    var mistakes: [Mistake] = []

    init(name: String) { self.name = name }

    /// - Throws: when it cannot be read at all; mistakes in it are values.
    init(path: String) throws(Failure) {
        do throws(SmallFile.ReadError) {
            let file = try SmallFile(path, limit: Self.largest)
            self = ConfigurationReader.read(file.bytes, name: path)
            if file.isForEverybody { namesOfOpenSecrets = settings.filter(Self.isSecret).keys.sorted() }
        } catch {
            throw Failure(.usage, "the configuration \(Printable.text(path)) cannot be read: \(error.reason)")
        }
    }

    /// Keys of secrets that stand in a file which every user of the machine may read.
    private(set) var namesOfOpenSecrets: [String] = []

    private static func isSecret(_ key: String, _ value: Value) -> Bool {
        guard let row = Settings.rows[key] else { return false }
        return row.isSecret || row.holdsPassword(value.text)
    }

    /// The sentences, each with file, line and column before it.
    var problems: [String] {
        mistakes.map { "\(Printable.text(name)):\($0.line):\($0.column): \($0.sentence)" }
    }

    /// The settings that may stand in a file, by their names in it.
    static let rows = Dictionary(
        uniqueKeysWithValues: Settings.table.filter { $0.key != Settings.configKey }.map { ($0.fileName, $0) })
}

extension SettingRow {
    /// What the setting is called in a configuration file.
    var fileName: String { key.dropFirst("MARTLET_".count).lowercased() }
}
