package import NIOCore

/// Bounds of one server's, or one client's, connections.
package struct WebSocketLimits: Sendable {
    /// Payload bytes of one received message, all of its fragments together. More ends the connection with 1009.
    package var maximumMessageBytes = 64 * 1024
    /// Bytes accepted for sending and not yet taken by the kernel. More ends the connection with 4001 "slow, resume".
    package var maximumQueuedBytes = 1024 * 1024
    /// From our Close frame (or the end of a refused request) to the end of the TCP connection.
    package var closeTimeout: TimeAmount = .seconds(5)
    /// Server: from the first byte of a request (or the accept) to its end.
    package var requestTimeout: TimeAmount = .seconds(10)
    /// Server: how long a kept-alive HTTP connection may wait for its next request.
    package var keepAliveTimeout: TimeAmount = .seconds(75)
    /// Server: from the first byte of a message to its last, fragments and control frames between them included. Longer ends the
    /// connection with 1002.
    package var messageTimeout: TimeAmount = .seconds(30)
    /// Client: from the start of `connect` to the verified handshake.
    package var connectTimeout: TimeAmount = .seconds(10)
    /// Server: agree on permessage-deflate (RFC 7692) with clients that offer it.
    package var allowsCompression = false
    /// Request line and headers. More is answered 431.
    package var maximumHeadBytes = 64 * 1024
    /// Body of one HTTP request. More is answered 413.
    package var maximumBodyBytes = 64 * 1024

    package init() {}
}

/// Close codes (RFC 6455 section 7.4 and the IANA registry) that the transport itself sends or reports.
package enum WebSocketCloseCode {
    package static let normal: UInt16 = 1000
    package static let goingAway: UInt16 = 1001
    package static let protocolError: UInt16 = 1002
    package static let unsupportedData: UInt16 = 1003
    /// Reported when the peer's Close frame had no code; never on the wire.
    package static let noStatus: UInt16 = 1005
    /// Reported when the connection ended without any Close frame; never on the wire.
    package static let abnormal: UInt16 = 1006
    package static let invalidPayload: UInt16 = 1007
    package static let messageTooBig: UInt16 = 1009
    package static let internalError: UInt16 = 1011
    /// More bytes were queued than `WebSocketLimits.maximumQueuedBytes`: reconnect and resume.
    package static let slowConsumer: UInt16 = 4001

    /// Whether a Close frame may carry `code`: 1000–1003, 1007–1014 and 3000–4999.
    package static func isAllowedOnTheWire(_ code: UInt16) -> Bool {
        switch code {
        case 1000...1003, 1007...1014, 3000...4999: true
        default: false
        }
    }
}
