import Foundation

/// The Redis user that docs/operations.md tells operators to make: what tests are run with is what stands there.
package enum RedisAccess {
    package struct NotThere: Error {}

    /// `ACL SETUSER martlet on >… ~martlet:* …`, by word.
    package static func line() throws -> [String] {
        let here = URL(filePath: #filePath).deletingLastPathComponent()
        // The checkout may have been built under another path than it stands in now.
        let pages = [here.appending(path: "../../docs/operations.md"), URL(filePath: "docs/operations.md")]
        let text = pages.lazy.compactMap { try? String(contentsOf: $0, encoding: .utf8) }.first ?? ""
        guard let line = text.split(separator: "\n").first(where: { $0.hasPrefix("ACL SETUSER ") }) else {
            throw NotThere()
        }
        return line.split(separator: " ").map(String.init)
    }

    /// For redis-server: the user with that user's rights on another prefix.
    static func arguments(prefix: String) throws -> [String] {
        ["--user"] + (try line().dropFirst(2).map { $0.replacing("martlet:*", with: prefix + ":*") })
    }

    /// `martlet:a-long-password@`, as it stands in a URL.
    static func login() throws -> String {
        let words = try line()
        guard words.count > 2, let password = words.first(where: { $0.hasPrefix(">") }) else { throw NotThere() }
        return "\(words[2]):\(password.dropFirst())@"
    }
}
