/// Why a command has no reply.
package struct RedisError: Error, Sendable, Hashable, CustomStringConvertible {
    package enum Code: Sendable, Hashable {
        /// There is no connection, or it takes no more bytes. Nothing was written, so it is safe to send again.
        case notConnected
        /// The connection was lost, or closed by its owner, after the command was written; also because what came back is
        /// not RESP.
        case closed
        /// The reply did not come by the command's deadline.
        case timeout
        /// Redis answered with an error.
        case server
    }

    package let code: Code
    /// One sentence; for `server` the whole text of Redis, from its code word on ("OOM command not allowed …").
    package let message: String
    /// Whether the command reached the socket.
    let wasWritten: Bool

    package init(code: Code, message: String) {
        self.init(code: code, message: message, wasWritten: code != .notConnected)
    }

    init(code: Code, message: String, wasWritten: Bool) {
        self.code = code
        self.message = message
        self.wasWritten = wasWritten
    }

    /// Redis may or may not have run the command.
    package var outcomeIsUnknown: Bool {
        switch code {
        case .closed, .timeout: wasWritten
        case .notConnected, .server: false
        }
    }

    /// Redis refused the command because `maxmemory` is reached; also from inside a script.
    package var isOutOfMemory: Bool {
        guard code == .server else { return false }
        // Redis before 7 wraps a script's error: "ERR Error running script (…): @user_script:1: -OOM command …".
        return message.hasPrefix("OOM ") || message.contains("-OOM ")
    }

    /// The script cache of Redis is empty (SCRIPT FLUSH, another server).
    var isNoScript: Bool { code == .server && message.hasPrefix("NOSCRIPT") }

    package var description: String { message }
}
