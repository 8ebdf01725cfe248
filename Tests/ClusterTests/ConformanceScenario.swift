import Foundation
import TestSupport
import Testing

/// One scenario of `Tests/Conformance/scenarios.json`.
struct ConformanceScenario: Sendable, CustomTestStringConvertible {
    struct Step: Sendable, CustomStringConvertible {
        let json: JSON

        var client: String? { json["client"]?.string }
        var action: String? { json["do"]?.string }
        var expectation: String? { json["expect"]?.string }
        var room: String { json["room"]?.string ?? "" }
        var rooms: [String] { strings("rooms") }
        var description: String { json.text }

        func strings(_ key: String) -> [String] { json[key]?.array?.compactMap(\.string) ?? [] }

        func number(_ key: String) -> Int? { json[key]?.int.map { Int($0) } }

        /// What it sends or expects: `texts`, `count` numbered ones, or one of a `length`.
        var texts: [String] {
            if let count = number("count"), let text = json["text"]?.string {
                let first = number("from") ?? 1
                return (first..<(first + count)).map { "\(text) \($0)" }
            }
            if let length = number("length") { return [String(repeating: "x", count: length)] }
            return strings("texts")
        }
    }

    struct Person: Sendable {
        var user: String
        /// `good`, `bad` or none.
        var token: String?
        /// What its provider gives, one after the other, the last again and again.
        var tokens: [JSON]?
    }

    let name: String
    /// Settings of a node of its own.
    let node: [String: String]
    let steps: [Step]

    var testDescription: String { name }
    var killsNodes: Bool { steps.contains { $0.action == "kill the node" } }

    var people: [String: Person] {
        var people: [String: Person] = [:]
        for step in steps {
            guard let name = step.client else { continue }
            if let user = step.json["user"]?.string { people[name, default: Person(user: name)].user = user }
            people[name, default: Person(user: name)].token ?= step.json["token"]?.string
            people[name, default: Person(user: name)].tokens ?= step.json["tokens"]?.array
        }
        return people
    }

    /// Empty when the file cannot be read.
    static let all: [ConformanceScenario] = {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../Conformance/scenarios.json")
        guard let text = try? String(contentsOf: file, encoding: .utf8), let json = try? JSON(parsing: text) else {
            return []
        }
        return (json["scenarios"]?.array ?? []).map { scenario in
            ConformanceScenario(
                name: scenario["name"]?.string ?? "",
                node: (scenario["node"]?.object ?? [:]).compactMapValues(\.string),
                steps: (scenario["steps"]?.array ?? []).map(Step.init))
        }
    }()
}

infix operator ?= : AssignmentPrecedence

private func ?= <Value>(target: inout Value?, value: Value?) {
    if let value { target = value }
}
