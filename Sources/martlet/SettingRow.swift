import Logging
import NIOCore

/// One row of `Settings.table`.
struct SettingRow: Sendable {
    enum Reader: String, Sendable, CaseIterable { case node, router, dev, admin, token, chat }

    /// What a configuration file may say beside text.
    enum Form: Sendable { case text, number, list, toggle }

    let key: String
    /// The flag that overrides the key, where there is one.
    var flag: String?
    /// Ends the sentence "KEY is VALUE, but must be …".
    let allowed: String
    let readers: Set<Reader>
    /// One sentence.
    let doc: String
    /// nil when nothing stands for the setting by default; `unset` then says what happens.
    let defaultText: String?
    var unset: String?
    /// A comma-separated list is `.list`, one of on and off `.toggle`.
    var form = Form.text
    /// The value never appears in an error or a log.
    var isSecret = false
    /// Of a row whose value is the path of a file: the key of the secret that stands in it.
    var fileOf: String?
    /// Whether a value has a password inside, which nobody may give on the command line.
    var holdsPassword: @Sendable (String) -> Bool = { _ in false }
    /// What may be told of a value that is not secret as a whole.
    var redacted: @Sendable (String) -> String = { $0 }
    /// Why the text was refused, where the row knows more than `allowed`; never shows a secret.
    var refusal: (@Sendable (String) -> String)?
    /// Checks the text and stores it; false leaves the settings as they were.
    let apply: @Sendable (inout Settings, String) -> Bool

    /// What may be told of a value: of a secret its length alone.
    func shown(_ text: String) -> String { isSecret ? "(\(text.utf8.count) bytes)" : redacted(text) }

    /// - Throws: one sentence that begins with the name by which the value was given.
    func store(_ text: String, as name: String, in settings: inout Settings) throws(Failure) {
        guard !apply(&settings, text) else { return }
        if let refusal { throw Failure(.usage, "\(name): \(refusal(text))") }
        let value = isSecret ? "of \(text.utf8.count) bytes" : "“\(Printable.text(text))”"
        throw Failure(.usage, "\(name) is \(value), but must be \(allowed)")
    }
}

extension Set<SettingRow.Reader> {
    static let all = Set(SettingRow.Reader.allCases)
    static let servers: Self = [.node, .router, .dev]
    static let node: Self = [.node, .dev]
    static let redis: Self = [.node, .router, .dev, .admin]
}

/// A rule for text and the words that end "but must be …".
struct SettingSyntax: Sendable {
    let allowed: String
    var refusal: (@Sendable (String) -> String)?
    var holdsPassword: @Sendable (String) -> Bool = { _ in false }
    var redacted: @Sendable (String) -> String = { $0 }
    let accepts: @Sendable (String) -> Bool
}

extension SettingRow {
    typealias Path<Value> = any WritableKeyPath<Settings, Value> & Sendable

    static func text(
        _ key: String, flag: String? = nil, _ path: Path<String>, _ syntax: SettingSyntax, _ readers: Set<Reader>,
        _ doc: String
    ) -> SettingRow {
        SettingRow(
            key: key, flag: flag, allowed: syntax.allowed, readers: readers, doc: doc,
            defaultText: Settings.defaults[keyPath: path], holdsPassword: syntax.holdsPassword,
            redacted: syntax.redacted,
            refusal: syntax.refusal
        ) { settings, text in
            guard syntax.accepts(text) else { return false }
            settings[keyPath: path] = text
            return true
        }
    }

    static func optionalText(
        _ key: String, flag: String?, _ path: Path<String?>, _ syntax: SettingSyntax, _ readers: Set<Reader>,
        _ doc: String, unset: String, isSecret: Bool = false
    ) -> SettingRow {
        SettingRow(
            key: key, flag: flag, allowed: syntax.allowed, readers: readers, doc: doc, defaultText: nil, unset: unset,
            isSecret: isSecret, redacted: syntax.redacted, refusal: syntax.refusal
        ) { settings, text in
            guard syntax.accepts(text) else { return false }
            settings[keyPath: path] = text
            return true
        }
    }

    static func integer(
        _ key: String, flag: String? = nil, _ path: Path<Int>, _ range: ClosedRange<Int>, _ readers: Set<Reader>,
        _ doc: String
    ) -> SettingRow {
        SettingRow(
            key: key, flag: flag, allowed: "a whole number from \(range.lowerBound) to \(range.upperBound)",
            readers: readers, doc: doc, defaultText: String(Settings.defaults[keyPath: path]), form: .number
        ) { settings, text in
            guard let number = SettingSyntax.wholeNumber(text), range.contains(number) else { return false }
            settings[keyPath: path] = number
            return true
        }
    }

    static func optionalInteger(
        _ key: String, flag: String?, _ path: Path<Int?>, _ range: ClosedRange<Int>, _ readers: Set<Reader>,
        _ doc: String, unset: String
    ) -> SettingRow {
        SettingRow(
            key: key, flag: flag, allowed: "a whole number from \(range.lowerBound) to \(range.upperBound)",
            readers: readers, doc: doc, defaultText: nil, unset: unset, form: .number
        ) { settings, text in
            guard let number = SettingSyntax.wholeNumber(text), range.contains(number) else { return false }
            settings[keyPath: path] = number
            return true
        }
    }

    /// Seconds with an optional fraction, kept to the microsecond.
    static func seconds(
        _ key: String, flag: String? = nil, _ path: Path<TimeAmount>, _ range: ClosedRange<Int>,
        _ readers: Set<Reader>, _ doc: String
    ) -> SettingRow {
        SettingRow(
            key: key, flag: flag, allowed: "seconds from \(range.lowerBound) to \(range.upperBound)",
            readers: readers, doc: doc,
            defaultText: String(Settings.defaults[keyPath: path].nanoseconds / 1_000_000_000), form: .number
        ) { settings, text in
            guard let amount = SettingSyntax.seconds(text),
                amount >= .seconds(Int64(range.lowerBound)), amount <= .seconds(Int64(range.upperBound))
            else { return false }
            settings[keyPath: path] = amount
            return true
        }
    }

    static func choice<Value: RawRepresentable<String> & CaseIterable & Sendable>(
        _ key: String, flag: String? = nil, _ path: Path<Value>, _ readers: Set<Reader>, _ doc: String
    ) -> SettingRow {
        let names = Value.allCases.map(\.rawValue)
        return SettingRow(
            key: key, flag: flag, allowed: "one of " + names.joined(separator: ", "), readers: readers, doc: doc,
            defaultText: Settings.defaults[keyPath: path].rawValue, form: Set(names) == ["on", "off"] ? .toggle : .text
        ) { settings, text in
            guard let value = Value(rawValue: text) else { return false }
            settings[keyPath: path] = value
            return true
        }
    }
}

extension SettingRow {
    /// The row by which a secret comes from a file; a file that cannot be read is refused with the reason.
    static func file(
        _ key: String, flag: String? = nil, of secret: String, _ readers: Set<Reader>
    ) -> SettingRow {
        @Sendable func problem(_ path: String, _ settings: inout Settings) -> String? {
            guard let row = Settings.rows[secret] else { return "no setting is called \(secret)" }
            do throws(Failure) {
                try SecretFile.apply(path, to: row, in: &settings)
                return nil
            } catch {
                return error.sentence
            }
        }
        return SettingRow(
            key: key, flag: flag, allowed: "the path of a file that can be read", readers: readers,
            doc:
                "A file that holds the value of \(secret) and at most one newline behind it; only one of the two may be set.",
            defaultText: nil, unset: "\(secret) counts", fileOf: secret,
            refusal: { path in
                var settings = Settings()
                return problem(path, &settings) ?? ""
            },
            apply: { settings, path in problem(path, &settings) == nil })
    }
}

extension Settings {
    static let defaults = Settings()
}
