import Glibc

/// Settings in a file: `KEY=VALUE` lines, as shells and docker compose read them too, but nothing in a value is ever
/// replaced or run.
///
/// 1. Empty lines and those that begin with `#` say nothing; behind an unquoted value ` #` begins a comment.
/// 2. A value may stand in single quotes, where everything is itself, or in double quotes, where `\"`, `\\` and `\$` are
///    the character. It is one line long.
/// 3. `export` before the key is passed over; of two lines for one key the last counts.
struct DotEnv: Equatable, Sendable {
    private(set) var values: [String: String] = [:]

    /// - Parameter name: what an error calls the file.
    /// - Throws: one sentence that names the line, for a line that is none of this or a `MARTLET_` key that no setting is
    ///   called; it never shows a value.
    init(parsing text: String, name: String) throws(Failure) {
        // CR LF is one Character.
        let lines = text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline)
        for (index, line) in lines.enumerated() {
            let line = Self.trim(line)
            guard !line.isEmpty, line.first != "#" else { continue }
            let place = "line \(index + 1) of \(name)"
            guard let equals = line.firstIndex(of: "=") else { throw Failure(.usage, "\(place) is not KEY=VALUE") }
            var key = Self.trim(line[..<equals])
            if key.hasPrefix("export ") { key = Self.trim(key.dropFirst(7)) }
            guard Self.isName(key) else { throw Failure(.usage, "\(place) is not KEY=VALUE") }
            try Settings.refuseUnknownKey(String(key), in: place)
            guard let value = Self.value(Self.trim(line[line.index(after: equals)...])) else {
                throw Failure(.usage, "\(place) has a quote that does not end, or something behind it")
            }
            values[String(key)] = value
        }
    }

    /// The environment with what the working folder's `.env` adds: what the environment has, also as an empty text, wins.
    static func adding(to environment: [String: String], path: String = ".env") throws(Failure) -> [String: String] {
        guard let text = try read(path) else { return environment }
        return try DotEnv(parsing: text, name: path).values.merging(environment) { $1 }
    }

    private static func read(_ path: String) throws(Failure) -> String? {
        do throws(SmallFile.ReadError) {
            return String(decoding: try SmallFile(path, limit: 1_048_576).bytes, as: UTF8.self)
        } catch {
            if error.code == ENOENT { return nil }
            throw Failure(.failed, "\(path) cannot be read: \(error.reason)")
        }
    }

    private static func value(_ text: Substring) -> String? {
        guard let quote = text.first, quote == "'" || quote == "\"" else {
            var end = text.startIndex
            while end < text.endIndex {
                let blankBefore = end == text.startIndex || text[text.index(before: end)].isWhitespace
                if text[end] == "#", blankBefore { break }
                end = text.index(after: end)
            }
            return String(trim(text[..<end]))
        }
        var result = ""
        var rest = text.dropFirst()
        while let character = rest.popFirst() {
            if character == quote {
                let behind = trim(rest)
                return behind.isEmpty || behind.first == "#" ? result : nil
            }
            if quote == "\"", character == "\\", let next = rest.first, "\"\\$".contains(next) {
                result.append(next)
                rest.removeFirst()
            } else {
                result.append(character)
            }
        }
        return nil
    }

    private static func isName(_ key: Substring) -> Bool {
        guard let first = key.utf8.first, !(0x30...0x39).contains(first) else { return false }
        return key.utf8.allSatisfy {
            (0x30...0x39).contains($0) || (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0) || $0 == 0x5F
        }
    }

    private static func trim(_ text: Substring) -> Substring {
        var text = text
        while text.first?.isWhitespace == true { text.removeFirst() }
        while text.last?.isWhitespace == true { text.removeLast() }
        return text
    }
}
