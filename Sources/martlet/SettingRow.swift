import Logging
import NIOCore

/// One row of `Settings.table`.
struct SettingRow: Sendable {
    enum Reader: String, Sendable, CaseIterable { case node, router, dev, admin, token }

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
    /// The value never appears in an error or a log.
    var isSecret = false
    /// Why the text was refused, where the row knows more than `allowed`; never shows a secret.
    var refusal: (@Sendable (String) -> String)?
    /// Checks the text and stores it; false leaves the settings as they were.
    let apply: @Sendable (inout Settings, String) -> Bool
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
            defaultText: Settings.defaults[keyPath: path], refusal: syntax.refusal
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
            isSecret: isSecret
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
            readers: readers, doc: doc, defaultText: String(Settings.defaults[keyPath: path])
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
            readers: readers, doc: doc, defaultText: nil, unset: unset
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
            defaultText: String(Settings.defaults[keyPath: path].nanoseconds / 1_000_000_000)
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
            defaultText: Settings.defaults[keyPath: path].rawValue
        ) { settings, text in
            guard let value = Value(rawValue: text) else { return false }
            settings[keyPath: path] = value
            return true
        }
    }
}

extension Settings {
    static let defaults = Settings()
}
