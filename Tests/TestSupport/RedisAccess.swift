import Foundation

/// The Redis users that docs/operations.md tells operators to make: what tests are run with is what stands there.
package enum RedisAccess: String, CaseIterable, Sendable {
    case node = "martlet"
    case router = "martlet-router"

    package struct NotThere: Error {}

    /// `ACL SETUSER martlet on >… ~martlet:* …`, by word.
    package func line() throws -> [String] {
        let text = try Self.text("docs/operations.md")
        guard let line = text.split(separator: "\n").first(where: { $0.hasPrefix("ACL SETUSER \(rawValue) ") }) else {
            throw NotThere()
        }
        return line.split(separator: " ").map(String.init)
    }

    /// What a file of this checkout holds.
    package static func text(_ path: String) throws -> String {
        let here = URL(filePath: #filePath).deletingLastPathComponent()
        // The checkout may have been built under another path than it stands in now.
        let places = [here.appending(path: "../../" + path), URL(filePath: path)]
        guard let text = places.lazy.compactMap({ try? String(contentsOf: $0, encoding: .utf8) }).first else {
            throw NotThere()
        }
        return text
    }

    /// For redis-server: users with those rights on another prefix.
    static func arguments(prefix: String) throws -> [String] {
        try allCases.flatMap { user in
            try ["--user"] + user.line().dropFirst(2).map { $0.replacing("martlet:", with: prefix + ":") }
        }
    }

    /// `martlet:a-long-password@`, as it stands in a URL.
    func login() throws -> String {
        guard let password = try line().first(where: { $0.hasPrefix(">") }) else { throw NotThere() }
        return "\(rawValue):\(password.dropFirst())@"
    }
}
