package import NIOCore

/// What a connection tells its owner. Every call comes on the connection's event loop.
///
/// A delegate may call any method of the connection, of other connections of the same loop too, from inside any of these.
package protocol WebSocketDelegate: AnyObject {
    /// A whole text message, valid UTF-8. The buffer's storage is used again for the next message: reading it during
    /// the call costs nothing, keeping it longer costs the transport an allocation.
    func webSocket(_ connection: WebSocketConnection, receivedText text: ByteBuffer)
    /// A whole binary message; the same holds for its buffer.
    func webSocket(_ connection: WebSocketConnection, receivedBinary bytes: ByteBuffer)
    /// The end of a read burst that delivered at least one message. What was sent in the burst is flushed after this.
    func webSocketReadComplete(_ connection: WebSocketConnection)
    /// It is answered already.
    func webSocketReceivedPing(_ connection: WebSocketConnection)
    func webSocketReceivedPong(_ connection: WebSocketConnection)
    /// Half of `WebSocketLimits.maximumQueuedBytes` or less waits again, after `WebSocketConnection.isBehind`.
    func webSocketCaughtUp(_ connection: WebSocketConnection)
    /// Exactly once, after everything else, when the TCP connection is gone. `code` is that of the first Close frame of
    /// the closing handshake, whoever sent it: the peer's (1005 when it was empty), or ours when we closed first; 1006
    /// when there was none. Nothing may be sent any more.
    func webSocketClosed(_ connection: WebSocketConnection, code: UInt16, reason: String)
}

extension WebSocketDelegate {
    package func webSocket(_ connection: WebSocketConnection, receivedBinary bytes: ByteBuffer) {
        connection.close(code: WebSocketCloseCode.unsupportedData, reason: "text messages only")
    }
    package func webSocketReadComplete(_ connection: WebSocketConnection) {}
    package func webSocketReceivedPing(_ connection: WebSocketConnection) {}
    package func webSocketReceivedPong(_ connection: WebSocketConnection) {}
    package func webSocketCaughtUp(_ connection: WebSocketConnection) {}
}
