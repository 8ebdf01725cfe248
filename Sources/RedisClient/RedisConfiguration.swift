package import NIOCore
package import TLSClient

/// Where Redis is and how it is asked. Its description never shows the password.
package struct RedisConfiguration: Sendable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    enum Address: Sendable, Hashable {
        case host(String, port: Int)
        case unixSocket(path: String)
    }

    let address: Address
    /// nil speaks plainly.
    let tls: TLSClientOptions?
    /// The ACL user; nil is Redis' `default`.
    let user: String?
    let password: String?
    let database: Int

    /// What every key and channel begins with. The client itself adds it nowhere.
    package let keyPrefix: String
    /// From the call to the reply; each command may have its own.
    package var commandTimeout: TimeAmount = .seconds(2)
    /// For the dialling of a connection, and then again for the greeting on it (AUTH, SELECT, SCRIPT LOAD …).
    package var connectTimeout: TimeAmount = .seconds(2)
    /// A connection with commands pending and no byte read for this long is closed and dialled again.
    package var silenceTimeout: TimeAmount = .seconds(10)
    /// What CLIENT LIST shows. No spaces.
    package var clientName = "martlet"
    /// How often a subscriber publishes to itself.
    package var probeInterval: TimeAmount = .seconds(2)
    /// A subscriber that heard none of its probes for this long is deaf.
    package var deafAfter: TimeAmount = .seconds(5)
    /// The redial delay is random between zero and a bound that doubles from the first to the second of these.
    package var redialDelay: ClosedRange<TimeAmount> = .milliseconds(100)...(.seconds(5))

    /// `redis://[user:password@]host[:port][/database]`, the same with `rediss://` for TLS, or
    /// `unix://[user:password@]/path[?db=database]`.
    ///
    /// User, password and path may be percent-encoded. Port 6379 and database 0 unless given.
    ///
    /// - Parameter tls: for `rediss://`. With `redis://` it must ask for nothing: who set it wanted no plain connection.
    ///   A socket of this machine needs none.
    package init(
        url: String, keyPrefix: String = "martlet", tls: TLSClientOptions = TLSClientOptions()
    ) throws(RedisConfigurationError) {
        guard Self.isValidPrefix(keyPrefix) else { throw RedisConfigurationError(.keyPrefix) }
        let parsed = try RedisURL(url)
        if case .host = parsed.address, !parsed.isTLS, tls != TLSClientOptions() {
            throw RedisConfigurationError(.plainWithTLS)
        }
        self.tls = parsed.isTLS ? tls : nil
        self.address = parsed.address
        self.user = parsed.user
        self.password = parsed.password
        self.database = parsed.database
        self.keyPrefix = keyPrefix
    }

    var isPlainTCP: Bool {
        switch address {
        case .host: tls == nil
        case .unixSocket: false
        }
    }

    /// Whether the files of TLS can be used. They are read again at each connect. Blocks.
    package func checkFiles() throws(TLSFailure) {
        _ = try tls?.load()
    }

    package var hasPassword: Bool { password != nil }

    /// "127.0.0.1:6379", "[::1]:6379" or the path of the socket.
    package var addressDescription: String {
        switch address {
        case .host(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        case .unixSocket(let path): path
        }
    }

    package var description: String {
        let login = password == nil ? "" : "\(user ?? ""):***@"
        return switch address {
        case .host: "\(tls == nil ? "redis" : "rediss")://\(login)\(addressDescription)/\(database)"
        case .unixSocket: "unix://\(login)\(addressDescription)?db=\(database)"
        }
    }

    package var debugDescription: String { description }

    package var customMirror: Mirror { Mirror(self, children: ["url": description]) }

    /// A brace in the prefix would move the hash tag of every key.
    private static func isValidPrefix(_ prefix: String) -> Bool {
        (1...64).contains(prefix.utf8.count)
            && prefix.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: ":"),
                    UInt8(ascii: "-"):
                    true
                default:
                    false
                }
            }
    }
}

/// Why a Redis URL or key prefix can't be used: one sentence, without the password.
package struct RedisConfigurationError: Error, Sendable, Hashable, CustomStringConvertible {
    enum Reason: Sendable, Hashable {
        case scheme(String)
        case plainWithTLS
        case noScheme
        case host
        case port
        case database
        case path
        case parameter
        case fragment
        case percentEncoding
        case loginWithoutPassword
        case unencodedLogin
        case controlCharacter
        case keyPrefix
    }

    let reason: Reason

    init(_ reason: Reason) {
        self.reason = reason
    }

    package var description: String {
        switch reason {
        case .scheme(let scheme): "a Redis URL begins with redis://, rediss:// or unix://, not with \(scheme)://"
        case .plainWithTLS: "settings of TLS to Redis are given, but the URL is not rediss://"
        case .noScheme: "a Redis URL begins with redis://, rediss:// or unix://"
        case .host: "the Redis URL names no valid host"
        // What stands where a port or a parameter is due may be a piece of a password: never shown.
        case .port: "the port in the Redis URL must be a number from 1 to 65535"
        case .database: "the database in the Redis URL must be a number from 0 to 65535"
        case .path:
            "a unix:// URL needs the absolute path of a socket of at most 107 bytes, as in unix:///run/redis.sock"
        case .parameter: "the Redis URL has an unknown parameter; unix:// knows db, redis:// and rediss:// none"
        case .unencodedLogin:
            "a / ? or # in the user or password of the Redis URL must be percent-encoded (%2F %3F %23)"
        case .fragment: "the Redis URL must not have a # part; write # as %23"
        case .percentEncoding: "the Redis URL has a % that is not followed by two hexadecimal digits of valid UTF-8"
        case .loginWithoutPassword: "the Redis URL has a user but no password; write redis://user:password@host"
        case .controlCharacter: "the Redis URL must not have spaces or control characters"
        case .keyPrefix: "the Redis key prefix must be 1 to 64 of the characters A-Z a-z 0-9 _ . : -"
        }
    }
}
