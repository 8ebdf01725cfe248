/// What went wrong, as it goes over the wire: a number that never changes its meaning, a name for programs and a
/// sentence for people that says what to do.
package struct WireError: Error, Sendable, Equatable, CustomStringConvertible {
    package let code: Code
    package let message: String
    /// Milliseconds after which the same request may succeed; `nil` when sending it again is useless.
    package let retryAfterMilliseconds: Int64?

    package init(_ code: Code, _ message: String? = nil, retryAfterMilliseconds: Int64? = nil) {
        self.code = code
        self.message = message ?? code.summary
        self.retryAfterMilliseconds = retryAfterMilliseconds
    }

    package var description: String { "\(code.rawValue) \(code.reason): \(message)" }

    /// The table that `docs/protocol.md` and `martlet.d.ts` repeat: what an `error` frame says on an open
    /// connection. A refused HTTP request, also a refused upgrade, has its HTTP status for a number.
    package enum Code: Int, CaseIterable, Sendable {
        case malformedJSON = 100
        case unknownType = 101
        case invalidField = 102
        case rateLimited = 103
        case tooLarge = 104
        case binaryNotSupported = 105
        case notAuthenticated = 106
        case identityConflict = 107
        case invalidRoom = 108
        case invalidUser = 109
        case tooManyRooms = 110
        case notInRoom = 111
        case idReused = 112
        case unavailable = 113
        case storageFull = 114
        case authenticationFailed = 115
        case forbidden = 116
        case textNotSupported = 117
        case malformedProtobuf = 118
        case unknownNamespace = 119

        /// The stable name for programs.
        package var reason: String {
            switch self {
            case .malformedJSON: "malformed_json"
            case .unknownType: "unknown_type"
            case .invalidField: "invalid_field"
            case .rateLimited: "rate_limited"
            case .tooLarge: "too_large"
            case .binaryNotSupported: "binary_not_supported"
            case .notAuthenticated: "not_authenticated"
            case .identityConflict: "identity_conflict"
            case .invalidRoom: "invalid_room"
            case .invalidUser: "invalid_user"
            case .tooManyRooms: "too_many_rooms"
            case .notInRoom: "not_in_room"
            case .idReused: "id_reused"
            case .unavailable: "unavailable"
            case .storageFull: "storage_full"
            case .authenticationFailed: "authentication_failed"
            case .forbidden: "forbidden"
            case .textNotSupported: "text_not_supported"
            case .malformedProtobuf: "malformed_protobuf"
            case .unknownNamespace: "unknown_namespace"
            }
        }

        /// The sentence that is sent when nothing more exact is known.
        package var summary: String {
            switch self {
            case .malformedJSON: "send one JSON object (RFC 8259) in each text frame"
            case .unknownType: "the field type names no message that a client may send"
            case .invalidField: "a field is missing or has the wrong type"
            case .rateLimited: "too many messages; wait retry_ms and send again"
            case .tooLarge: "the value is larger than this server takes; send less"
            case .binaryNotSupported: "send text frames; binary frames carry nothing in martlet.v1.json"
            case .notAuthenticated: "send auth first"
            case .identityConflict: "this session already has another user; open a new connection to change it"
            case .invalidRoom: "this is not a room name"
            case .invalidUser: "this is not a user name"
            case .tooManyRooms: "this session is in as many rooms as it may be; leave one first"
            case .notInRoom: "join the room first"
            case .idReused: "this id was used for another payload; choose a new id"
            case .unavailable: "the message store cannot be reached; wait retry_ms and send again with the same id"
            case .storageFull: "the message store is full; wait retry_ms and send again with the same id"
            case .authenticationFailed: "the credentials were not accepted"
            case .forbidden: "this user may not do that"
            case .textNotSupported: "send binary frames; text frames carry nothing in martlet.v1.protobuf"
            case .malformedProtobuf: "send one ClientFrame of martlet.proto in each binary frame"
            case .unknownNamespace: "the server has no namespace of this name; ask its operator for one"
            }
        }

        /// Whether the same request may succeed later without a change.
        package var isRetryable: Bool {
            switch self {
            case .rateLimited, .unavailable, .storageFull: true
            case .malformedJSON, .unknownType, .invalidField, .tooLarge, .binaryNotSupported, .notAuthenticated,
                .identityConflict, .invalidRoom, .invalidUser, .tooManyRooms, .notInRoom, .idReused,
                .authenticationFailed, .forbidden, .textNotSupported, .malformedProtobuf, .unknownNamespace:
                false
            }
        }
    }
}

/// Close codes (RFC 6455 section 7.4). 4000–4099: reconnect and resume. 4100–4199: back off first. 4200–4299: do not
/// reconnect.
package enum CloseCode: UInt16, CaseIterable, Sendable {
    case normal = 1000
    case goingAway = 1001
    case protocolError = 1002
    case unsupportedData = 1003
    case invalidPayload = 1007
    case messageTooBig = 1009
    case internalError = 1011
    case draining = 4000
    case slow = 4001
    case heartbeatTimeout = 4002
    case tokenExpired = 4003
    case authenticationTimeout = 4100
    case overloaded = 4101
    case kicked = 4200
    case authenticationFailed = 4201
    case moved = 4202

    /// Whether a client that is closed with it may come back to its place (``ServerMessage/Welcome/secret``).
    package var mayResume: Bool {
        switch self {
        case .draining, .slow, .heartbeatTimeout, .tokenExpired, .protocolError, .unsupportedData, .invalidPayload,
            .messageTooBig,
            .internalError, .overloaded:
            true
        case .normal, .goingAway, .authenticationTimeout, .kicked, .authenticationFailed, .moved: false
        }
    }

    /// What is sent as the reason, and what it tells the client to do.
    package var reason: String {
        switch self {
        case .normal: "normal closure"
        case .goingAway: "going away"
        case .protocolError: "protocol error"
        case .unsupportedData: "unsupported data"
        case .invalidPayload: "invalid payload"
        case .messageTooBig: "message too big"
        case .internalError: "internal error"
        case .draining: "draining, reconnect"
        case .slow: "slow, resume"
        case .heartbeatTimeout: "no answer to ping, reconnect"
        case .tokenExpired: "token expired, reconnect with a new one"
        case .authenticationTimeout: "no auth in time"
        case .overloaded: "overloaded, back off"
        case .kicked: "kicked"
        case .authenticationFailed: "authentication failed"
        case .moved: "resumed elsewhere"
        }
    }
}
