import Foundation
import Testing
import WireProtocol

/// docs/protocol.md says what the code does: every example is decoded, the tables are compared with the enums.
@Suite("docs/protocol.md")
struct ProtocolDocumentTests {
    static let url = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appending(path: "docs/protocol.md")
    let text: String

    init() throws {
        text = try String(contentsOf: Self.url, encoding: .utf8)
    }

    private func examples(_ mark: String) -> [String] {
        text.split(separator: "\n").filter { $0.hasPrefix(mark + " {") }.map { String($0.dropFirst(2)) }
    }

    @Test("every client example is a message that the decoder takes")
    func clientExamples() throws {
        let examples = examples(">")
        #expect(examples.count > 10)
        for example in examples {
            _ = try decode(example)
        }
    }

    @Test("every server example is one JSON object with a type that a server sends")
    func serverExamples() throws {
        let types: Set = [
            "welcome", "joined", "left", "gap", "message", "ack", "error", "history", "presence", "typing", "pong",
            "reconnect", "token_expiring",
        ]
        var seen: Set<String> = []
        for example in examples("<") {
            let object = try #require(try JSONSerialization.jsonObject(with: Data(example.utf8)) as? [String: Any])
            let type = try #require(object["type"] as? String)
            #expect(types.contains(type), "\(example)")
            seen.insert(type)
        }
        #expect(seen == types)
    }

    @Test("the table of errors is the enum's")
    func errors() {
        let rows = WireError.Code.allCases.map { "| \($0.rawValue) | `\($0.reason)` | \($0.summary) |" }
        check(rows, "errors", head: "| code | reason | what to do |\n| --- | --- | --- |")
    }

    @Test("the table of close codes is the enum's")
    func closeCodes() {
        let rows = CloseCode.allCases.map { "| \($0.rawValue) | \($0.reason) |" }
        check(rows, "close codes", head: "| code | reason |\n| --- | --- |")
    }

    private func check(_ rows: [String], _ name: String, head: String) {
        let table = head + "\n" + rows.joined(separator: "\n") + "\n"
        guard let start = text.range(of: "<!-- \(name): generated"),
            let open = text.range(of: "-->\n", range: start.upperBound..<text.endIndex),
            let end = text.range(of: "<!-- /\(name) -->")
        else {
            Issue.record("docs/protocol.md has no marked table of \(name)")
            return
        }
        #expect(text[open.upperBound..<end.lowerBound] == table, "the table must be:\n\(table)")
    }
}

func decode(_ text: String) throws -> ClientMessage {
    try Array(text.utf8).withUnsafeBytes { bytes throws(ClientMessageError) in try ClientMessage(decoding: bytes) }
}
