#if DEBUG || FUZZING
import WireProtocol
@testable import martlet

/// 1. A mistake stands within the text, in order, and is told in one line that no terminal acts on.
/// 2. A file without one is JSON to another reader too.
/// 3. What is wrong with its settings together is one sentence; what is right is shown without a secret.
func checkConfigurationFile(_ bytes: UnsafeRawBufferPointer) throws(FuzzFinding) {
    let file = ConfigurationReader.read(Array(bytes), name: "m.json")
    let lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
    for (mistake, problem) in zip(file.mistakes, file.problems) {
        try hold("a mistake is in a line", (1...lines.count).contains(mistake.line))
        try hold("at a place of it", (1...lines[mistake.line - 1].count + 1).contains(mistake.column))
        try holdSentence(problem)
    }
    for (mistake, next) in zip(file.mistakes, file.mistakes.dropFirst()) {
        try hold("mistakes are in order", (mistake.line, mistake.column) <= (next.line, next.column))
    }
    try hold("mistakes are bounded", file.mistakes.count <= ConfigurationFile.maximumMistakes)
    guard file.mistakes.isEmpty else { return }
    let verdict = JSONReference.verdict(bytes, maximumDepth: JSONScanner.maximumDepth)
    try hold("a file without mistakes is JSON", verdict == .text)
    if let settings = try settings(Sources(file: file)) { try checkShown(settings) }
}

/// 1. What is refused is so in one sentence.
/// 2. A name is one that a process may have in its environment; a value is one line, and in quotes it reads the same.
func checkDotEnv(_ text: String) throws(FuzzFinding) {
    let values: [String: String]
    do throws(Failure) {
        values = try DotEnv(parsing: text, name: ".env").values
    } catch {
        return try holdSentence(error.sentence)
    }
    var written = ""
    for (key, value) in values {
        try hold("a name is a word", !key.isEmpty && !key.contains { $0.isWhitespace || $0 == "=" || $0 == "#" })
        try hold("a value is one line", !value.contains(where: \.isNewline))
        let quoted = value.map { "\"\\$".contains($0) ? "\\\($0)" : String($0) }.joined()
        written += "export \(key)=\"\(quoted)\" # said\n"
    }
    try hold("values in quotes read the same", (try? DotEnv(parsing: written, name: ".env"))?.values == values)
}

/// Lines `KEY=VALUE` as an environment has them.
///
/// 1. They mean the same in a configuration file, and are refused there too.
/// 2. What is refused is so in one sentence, which says of a secret no more than its length.
func checkSettings(_ text: String) throws(FuzzFinding) {
    var environment: [String: String] = [:]
    for line in text.split(separator: "\n") {
        let parts = line.split(separator: "=", maxSplits: 1)
        // Without a value nothing is said; a file of its own is what another entry is about.
        guard parts.count == 2, let row = Settings.rows[String(parts[0])], row.key != Settings.configKey else {
            continue
        }
        environment[row.key] = String(parts[1])
        if row.isSecret { try checkRefusal(of: row, String(parts[1])) }
    }
    let direct = try settings(Sources(environment: environment))
    if let direct { try checkShown(direct) }
    var writer = JSONWriter()
    writer.beginObject()
    for row in Settings.table {
        guard let value = environment[row.key] else { continue }
        writer.member(row.fileName, value)
    }
    writer.endObject()
    let file = ConfigurationReader.read(writer.bytes, name: "m.json")
    let read = file.mistakes.isEmpty ? try settings(Sources(file: file)) : nil
    try hold("settings mean the same in a file", withoutOrigin(read) == withoutOrigin(direct))
}

/// Nil when they are refused.
private func settings(_ sources: Sources) throws(FuzzFinding) -> Settings? {
    do throws(Failure) {
        return try Settings(sources)
    } catch {
        try holdSentence(error.sentence)
        return nil
    }
}

private func withoutOrigin(_ settings: Settings?) -> Settings? {
    var settings = settings
    settings?.given = [:]
    settings?.file = nil
    return settings
}

private func checkRefusal(of row: SettingRow, _ text: String) throws(FuzzFinding) {
    func sentence(_ text: String) -> String? {
        var settings = Settings()
        do throws(Failure) {
            try row.store(text, as: row.key, in: &settings)
            return nil
        } catch {
            return error.sentence
        }
    }
    let other = String(repeating: "x", count: text.utf8.count)
    try hold("of a secret its length alone is said", sentence(text) == sentence(other))
}

private func checkShown(_ settings: Settings) throws(FuzzFinding) {
    let values = EffectiveValue.all(of: settings)
    let json = Array(EffectiveValue.json(values).utf8)
    let verdict = json.withUnsafeBytes { JSONReference.verdict($0, maximumDepth: JSONScanner.maximumDepth) }
    try hold("what is shown is JSON", verdict == .text)
    for (row, value) in zip(Settings.table, values) where row.isSecret {
        try hold("a secret is not shown", value.value.map { $0.hasPrefix("(") && $0.hasSuffix(" bytes)") } ?? true)
    }
}

private func holdSentence(_ text: String) throws(FuzzFinding) {
    try hold("what is wrong is told in one line", !text.isEmpty && Printable.text(text) == text)
}
#endif
