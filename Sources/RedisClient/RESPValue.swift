package import NIOCore

/// One RESP2 reply (redis.io/docs/reference/protocol-spec).
///
/// The bulks of one reply are slices of one shared buffer: keeping one keeps the bytes of them all.
package enum RESPValue: Sendable, Equatable {
    /// A null bulk or a null array; RESP2 has both, and no command of ours tells them apart.
    case null
    case integer(Int64)
    case status(String)
    case bulk(ByteBuffer)
    /// An error inside an array, for instance of EXEC or a script. As the whole reply it fails the command instead.
    case error(String)
    case array([RESPValue])

    /// The integer, also when it came as decimal text (Lua's numbers, the fields of a hash).
    package var int: Int64? {
        switch self {
        case .integer(let value): value
        case .status, .bulk: string.flatMap { Int64($0) }
        case .null, .error, .array: nil
        }
    }

    /// The text of a status or bulk; invalid UTF-8 is repaired with U+FFFD.
    package var string: String? {
        switch self {
        case .status(let text): text
        case .bulk(let buffer): String(buffer: buffer)
        case .null, .integer, .error, .array: nil
        }
    }

    package var bytes: ByteBuffer? {
        switch self {
        case .status(let text): ByteBuffer(string: text)
        case .bulk(let buffer): buffer
        case .null, .integer, .error, .array: nil
        }
    }

    package var array: [RESPValue]? {
        switch self {
        case .array(let values): values
        case .null, .integer, .status, .bulk, .error: nil
        }
    }
}

/// One argument of a command, sent as a bulk string whatever its case.
package enum RedisArgument: Sendable, ExpressibleByStringLiteral {
    case string(String)
    case bytes(ByteBuffer)
    /// Sent as decimal text.
    case integer(Int64)

    package init(stringLiteral value: String) {
        self = .string(value)
    }
}
