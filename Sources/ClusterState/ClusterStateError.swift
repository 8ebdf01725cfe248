/// A reply of Redis that no script of ours gives, or a value that may not be stored.
package struct ClusterStateError: Error, Sendable, Hashable, CustomStringConvertible {
    package enum Code: Sendable, Hashable {
        /// A key of ours holds what we did not write, or another version did.
        case unexpectedReply
        case invalidNodeName
        /// The incarnation that asks was declared dead.
        case dead
    }

    package let code: Code
    package let message: String

    package var description: String { message }

    static func unexpectedReply(of script: String) -> ClusterStateError {
        ClusterStateError(code: .unexpectedReply, message: "the script \(script) gave a reply that it never gives")
    }
}
