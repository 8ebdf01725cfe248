import NIOCore
import NIOPosix
import TLSClient
import WireProtocol

/// A client of a Martlet cluster.
///
///     let client = try MartletClient(url: "ws://127.0.0.1:8080/ws", credential: .user("alice"))
///     Task { for await case .message(let message) in client.events() { print(message.from, message.text ?? "") } }
///     client.connect()
///     try await client.join("general")
///     try await client.publish("hi", to: "general")
///
/// It reconnects by itself, with full jitter, to the same session as long as the server keeps it, and takes up each room after the last message it delivered: each message
/// once, in the order of `seq`, also after a reconnect to another node. A publish is sent again under the same id until
/// it is acknowledged, so it is stored once. What cannot be had is said as ``MartletEvent/gap(room:from:to:)``.
///
/// All of it may be called from any thread. Cancelling the task of a call does not take a sent message back.
public final class MartletClient: Sendable {
    /// Who the client is.
    public enum Credential: Sendable {
        /// For servers that run with `MARTLET_AUTH=none`.
        case user(String)
        case token(String)
        /// Asked at each connect for a token that is good then, and for the next one in time before that ends. An error, or no answer within 10 s, is an attempt that
        /// failed: it is asked again after a while.
        case tokenProvider(TokenProvider)
    }

    /// What `wss://` asks of the server's certificate. TLS is 1.2 or newer, and the certificate is always checked.
    public struct TLSOptions: Sendable, Hashable {
        /// Whose signature makes a certificate good.
        public enum TrustRoots: Sendable, Hashable {
            /// Whom the system trusts.
            case system
            /// The certificates in a PEM file, and nobody else. It is read at each connect.
            case file(String)
        }

        /// Who may have signed it.
        public var trustRoots: TrustRoots
        /// What it must be for, a name; `nil` is the host in the URL.
        public var serverName: String?

        /// As it stands, what a browser asks.
        public init(trustRoots: TrustRoots = .system, serverName: String? = nil) {
            self.trustRoots = trustRoots
            self.serverName = serverName
        }

        var client: TLSClientOptions {
            switch trustRoots {
            case .system: TLSClientOptions(serverName: serverName)
            case .file(let path): TLSClientOptions(authorities: path, serverName: serverName)
            }
        }
    }

    /// Called from any thread.
    public typealias TokenProvider = @Sendable () async throws -> String

    private let figures = ClientFigures()
    private let eventLoop: any EventLoop
    private let engine: NIOLoopBoundBox<ClientEngine>

    /// - Parameters:
    ///   - url: `wss://host:port/ws`, or `ws` without TLS.
    ///   - tls: for `wss://`.
    ///   - clientInstance: scopes the ids of this client's messages, 1–64 of `A-Z a-z 0-9 _ . -`; a new one by default.
    ///   - locatesNode: asks the router at each connect where its node is, and connects there without the router, where
    ///     nodes have addresses for clients (`MARTLET_NODE_URL`). Whatever fails on that way, within 2 s for the question
    ///     and 2 s for the node, the connection goes through the router.
    ///   - keepsToNode: with a token, the user's name (the token's `sub`) stands in the address as `key`, so that routers keep
    ///     all clients of a user to one node; unless the URL's query has a `key`, `user` or `token`, or the token is no JWT.
    ///     Without it they keep a client with a token by its address. Proxies on the way may log what stands there.
    /// - Throws: ``MartletError`` `invalidArgument`.
    public init(
        url: String, credential: Credential, tls: TLSOptions = TLSOptions(), clientInstance: String? = nil,
        locatesNode: Bool = false, keepsToNode: Bool = true
    ) throws(MartletError) {
        let client = clientInstance ?? "swift-" + Base64URL.random(count: 16)
        var query = [("client", client)]
        do {
            _ = try ClientMessage.validate(client: client)
            switch credential {
            case .user(let name): query.insert(("user", try UserName(validating: name).string), at: 0)
            case .token, .tokenProvider: break
            }
        } catch {
            throw MartletError(.invalidArgument, error.message)
        }
        guard url.hasPrefix("ws://") || url.hasPrefix("wss://"), !url.contains("#") else {
            throw MartletError(.invalidArgument, "the URL is ws://host:port/ws or wss://host:port/ws")
        }
        let parameters = query.map { "\($0.0)=\(Self.percentEncoded($0.1))" }.joined(separator: "&")
        let separator = url.contains("?") ? "&" : "?"
        eventLoop = MultiThreadedEventLoopGroup.singleton.any()
        engine = .makeBoxSendingValue(
            ClientEngine(
                eventLoop: eventLoop, url: url + separator + parameters, tls: tls.client, client: client,
                credential: credential, locatesNode: locatesNode, keepsToNode: keepsToNode && !NodeKey.isGiven(in: url),
                idPrefix: Base64URL.random(count: 10), figures: figures),
            eventLoop: eventLoop)
    }

    deinit {
        let engine = engine
        eventLoop.execute { engine.value.close() }
    }

    /// The events from now on. Each call has its own stream; one that is not read keeps them all in memory.
    public func events() -> AsyncStream<MartletEvent> {
        let (stream, continuation) = AsyncStream.makeStream(of: MartletEvent.self)
        let engine = engine
        eventLoop.execute { engine.value.add(continuation) }
        return stream
    }

    /// How the connection is now, and each change of it; ends behind `closed`. Before ``connect()`` there is none.
    public func states() -> AsyncStream<ConnectionState> {
        let (stream, continuation) = AsyncStream.makeStream(of: ConnectionState.self)
        let engine = engine
        eventLoop.execute { engine.value.add(continuation) }
        return stream
    }

    /// How the connection is now; `nil` before ``connect()``.
    public var state: ConnectionState? { figures.state }

    /// How long the server's answer to the last ping took; `nil` before the first. Measured once on each connection,
    /// and again when it was silent for 20 s.
    public var roundTrip: Duration? { figures.roundTrip }

    /// Bytes of this client's messages that are not acknowledged yet, sent or not. Who posts faster than the server
    /// takes can wait until it falls.
    public var bufferedAmount: Int { figures.bufferedAmount }

    /// Starts; from here on the client stays connected by itself.
    public func connect() {
        perform { $0.start() }
    }

    /// Ends the session and the connection for good: others see this client go at once. Calls that wait fail with
    /// `closed`; streams end when the server has heard of it, a second or two later if it does not answer. Without a
    /// connection the session ends when the server's grace is over.
    public func close() {
        perform { $0.close() }
    }

    /// Returns when the server has answered, however many reconnects that takes.
    /// - Throws: ``MartletError`` `refused`, `closed` or `invalidArgument`.
    @discardableResult
    public func join(_ room: String) async throws -> JoinedRoom {
        try validate(room)
        return try await call { $0.join(room, $1) }
    }

    /// Messages of the room that were not acknowledged yet fail.
    public func leave(_ room: String) {
        perform { $0.leave(room) }
    }

    /// Returns when the message is stored. While the connection is gone it waits and is sent again.
    /// - Parameter data: JSON text, beside or instead of the text.
    /// - Throws: ``MartletError``; `outcomeUnknown` when the message was sent but no ack came for two minutes.
    @discardableResult
    public func publish(_ text: String?, data: String? = nil, to room: String) async throws -> Acknowledgement {
        try await post(text, data: data, to: room).acknowledgement()
    }

    /// As ``publish(_:data:to:)``, without waiting. Messages are sent in the order in which they are posted, as fast
    /// as the server allows, and get their `seq` in that order; only behind one that the server refused for a time may
    /// those that were on their way with it come first.
    public func post(_ text: String?, data: String? = nil, to room: String) -> PostedMessage {
        post(text, data: data, to: .room(room))
    }

    /// As ``publish(_:data:to:)``, in the private room with another user, which needs no join: all sessions of both get it.
    /// - Throws: also `invalidArgument` for what is no user name.
    @discardableResult
    public func direct(_ text: String?, data: String? = nil, to user: String) async throws -> Acknowledgement {
        try await postDirect(text, data: data, to: user).acknowledgement()
    }

    /// As ``direct(_:data:to:)``, without waiting, and in order like ``post(_:data:to:)``.
    public func postDirect(_ text: String?, data: String? = nil, to user: String) -> PostedMessage {
        do {
            _ = try UserName(validating: user)
            return post(text, data: data, to: .user(user))
        } catch {
            let error = MartletError(.invalidArgument, error.message)
            return PostedMessage(future: eventLoop.makeFailedFuture(error))
        }
    }

    private func post(_ text: String?, data: String?, to destination: Outbox.Destination) -> PostedMessage {
        let promise = eventLoop.makePromise(of: Acknowledgement.self)
        if text == nil, data == nil {
            promise.fail(MartletError(.invalidArgument, "give a text, data or both"))
        } else if let data, !Self.isJSON(data) {
            promise.fail(MartletError(.invalidArgument, "data is not JSON"))
        } else {
            let counted = (text?.utf8.count ?? 0) + (data?.utf8.count ?? 0)
            figures.addOnItsWay(counted)
            perform { $0.publish(text: text, data: data, to: destination, counted: counted, promise) }
        }
        return PostedMessage(future: promise.futureResult)
    }

    /// A message on its way.
    public struct PostedMessage: Sendable {
        fileprivate let future: EventLoopFuture<Acknowledgement>

        /// Returns when the message is stored.
        /// - Throws: ``MartletError``.
        @discardableResult
        public func acknowledgement() async throws -> Acknowledgement {
            try await future.get()
        }
    }

    private static func isJSON(_ text: String) -> Bool {
        Array(text.utf8).withUnsafeBytes { (try? JSONScanner.scanText($0)) != nil }
    }

    /// Call it on every keystroke; it goes out every 3 s at most.
    public func setTyping(_ isTyping: Bool, in room: String) {
        perform { $0.setTyping(isTyping, in: room) }
    }

    /// How this client is seen in all its rooms, also after a reconnect.
    public func setPresence(_ presence: Presence) {
        perform { $0.setPresence(presence) }
    }

    /// The newest messages, or those next to a `seq`.
    /// - Parameter limit: 1–100.
    /// - Throws: ``MartletError``; `disconnected` when the connection is or gets lost, `invalidArgument` for what is no
    ///   room name.
    public func history(
        of room: String, before: Int64? = nil, after: Int64? = nil, limit: Int = 50
    ) async throws -> HistoryPage {
        try validate(room)
        return try await call { $0.history(room, before: before, after: after, limit: limit, $1) }
    }

    private func validate(_ room: String) throws(MartletError) {
        do {
            _ = try RoomName(validating: room)
        } catch {
            throw MartletError(.invalidArgument, error.message)
        }
    }

    private func perform(_ body: @escaping @Sendable (ClientEngine) -> Void) {
        let engine = engine
        eventLoop.execute { body(engine.value) }
    }

    private func call<Answer: Sendable>(
        _ body: @escaping @Sendable (ClientEngine, EventLoopPromise<Answer>) -> Void
    ) async throws -> Answer {
        let promise = eventLoop.makePromise(of: Answer.self)
        perform { body($0, promise) }
        return try await promise.futureResult.get()
    }

    /// For a query component (RFC 3986 section 3.4): all but the unreserved characters.
    static func percentEncoded(_ text: String) -> String {
        var result = ""
        for byte in text.utf8 {
            let scalar = Unicode.Scalar(byte)
            switch scalar {
            case "a"..."z", "A"..."Z", "0"..."9", "-", "_", ".", "~": result.unicodeScalars.append(scalar)
            default:
                let hex = String(byte, radix: 16, uppercase: true)
                result += hex.count == 1 ? "%0\(hex)" : "%\(hex)"
            }
        }
        return result
    }
}
