import NIOCore
import NIOHTTP1
import TLSClient
import WebSocketTransport

/// Runs a ``ClientStateMachine``: the socket, the clock, the callers that wait and the streams of events.
/// Everything happens on its event loop.
final class ClientEngine {
    let eventLoop: any EventLoop
    private let url: String
    private let tls: TLSClientOptions
    private let provider: MartletClient.TokenProvider?
    private let figures: ClientFigures
    private var asking: Task<Void, Never>?
    private var machine: ClientStateMachine
    private var connection: WebSocketConnection?
    /// Of the socket: what an earlier one still says is dropped.
    private var generation = 0
    private var reconnecting: Scheduled<Void>?
    private var ticking: Scheduled<Void>?
    private var acknowledgements: [String: EventLoopPromise<Acknowledgement>] = [:]
    private var joins: [String: [EventLoopPromise<JoinedRoom>]] = [:]
    private var pages: [String: EventLoopPromise<HistoryPage>] = [:]
    private let events: StreamList<MartletEvent>
    private let states: StreamList<ConnectionState>
    private let locatesNode: Bool
    /// The last connect without the router has not led to a session: the next goes through it.
    private var distrustsNode = false
    private let keepsToNode: Bool
    private let idPrefix: String
    private var idCount = 0

    /// - Parameters:
    ///   - url: with a query.
    ///   - idPrefix: differs between two processes that share a client instance.
    init(
        eventLoop: any EventLoop, url: String, tls: TLSClientOptions, client: String,
        credential: MartletClient.Credential, locatesNode: Bool, keepsToNode: Bool, idPrefix: String,
        figures: ClientFigures
    ) {
        self.locatesNode = locatesNode
        self.keepsToNode = keepsToNode
        self.eventLoop = eventLoop
        self.url = url
        self.tls = tls
        self.idPrefix = idPrefix
        self.figures = figures
        events = StreamList(eventLoop: eventLoop)
        states = StreamList(eventLoop: eventLoop)
        switch credential {
        case .user(let name):
            provider = nil
            machine = ClientStateMachine(client: client, identity: .user(name))
        case .token(let token):
            provider = nil
            machine = ClientStateMachine(client: client, identity: .token(token))
        case .tokenProvider(let provider):
            self.provider = provider
            machine = ClientStateMachine(client: client, identity: .provider)
        }
    }

    // MARK: Calls

    func start() {
        guard machine.phase == .idle else { return }
        tickLater()
        run { $0.start(now: Self.now()) }
    }

    private func tickLater() {
        ticking = eventLoop.assumeIsolated().scheduleTask(in: .seconds(1)) {
            self.run { $0.tick(now: Self.now(), random: .random(in: 0..<1)) }
            if self.machine.phase != .closed { self.tickLater() }
        }
    }

    func close() {
        run { $0.close(now: Self.now()) }
    }

    func join(_ room: String, _ promise: EventLoopPromise<JoinedRoom>) {
        joins[room, default: []].append(promise)
        run { $0.join(room) }
    }

    func leave(_ room: String) {
        run { $0.leave(room, now: Self.now()) }
    }

    /// - Parameter counted: what the caller added to ``ClientFigures/addOnItsWay(_:)``.
    func publish(
        text: String?, data: String?, to destination: Outbox.Destination, counted: Int,
        _ promise: EventLoopPromise<Acknowledgement>
    ) {
        figures.addOnItsWay(-counted)
        let id = nextID()
        acknowledgements[id] = promise
        run { $0.publish(Outbox.Entry(id: id, to: destination, text: text, data: data), now: Self.now()) }
    }

    func setTyping(_ isTyping: Bool, in room: String) {
        run { $0.setTyping(isTyping, in: room, now: Self.now()) }
    }

    func setPresence(_ presence: Presence) {
        run { $0.setPresence(presence) }
    }

    func history(
        _ room: String, before: Int64?, after: Int64?, limit: Int, _ promise: EventLoopPromise<HistoryPage>
    ) {
        let id = nextID()
        pages[id] = promise
        run { $0.history(room, before: before, after: after, limit: limit, id: id) }
    }

    func add(_ stream: AsyncStream<MartletEvent>.Continuation) {
        guard machine.phase != .closed else { return stream.finish() }
        events.add(stream)
    }

    func add(_ stream: AsyncStream<ConnectionState>.Continuation) {
        if let state = figures.state { stream.yield(state) }
        guard machine.phase != .closed else { return stream.finish() }
        states.add(stream)
    }

    private func nextID() -> String {
        idCount += 1
        return "\(idPrefix)-\(idCount)"
    }

    // MARK: Effects

    private func run(_ input: (inout ClientStateMachine) -> [ClientStateMachine.Effect]) {
        eventLoop.assertInEventLoop()
        let effects = input(&machine)
        figures.set(buffered: machine.outbox.bytes, roundTrip: machine.roundTrip)
        for effect in effects { perform(effect) }
    }

    private func perform(_ effect: ClientStateMachine.Effect) {
        switch effect {
        case .askForToken: askForToken()
        case .askForRenewal: askForRenewal()
        case .connect(let resuming): connect(through: address(resuming: resuming))
        case .connectLater(let milliseconds):
            reconnecting = eventLoop.assumeIsolated().scheduleTask(in: .milliseconds(milliseconds)) {
                self.run { $0.retry(now: Self.now()) }
            }
        case .wakeLater(let milliseconds):
            eventLoop.assumeIsolated().scheduleTask(in: .milliseconds(milliseconds)) {
                self.run { $0.wake(now: Self.now()) }
            }
        case .send(let bytes): connection?.send(text: ByteBuffer(bytes: bytes))
        case .abandon:
            generation += 1
            reconnecting?.cancel()
            asking?.cancel()
            connection?.abort()
            connection = nil
        case .sayGoodbye:
            guard let connection else { return lost(code: 1006, reason: "") }
            connection.close(code: WebSocketCloseCode.normal, reason: "")
        case .giveUp(let reason, let wait):
            connection?.abort()
            lost(code: 1006, reason: reason, wait: wait)
        case .emit(let event): emit(event)
        case .acknowledge(let id, let result):
            acknowledgements.removeValue(forKey: id)?.completeWith(result.mapError { $0 })
        case .answerJoin(let room, let result):
            for promise in joins.removeValue(forKey: room) ?? [] { promise.completeWith(result.mapError { $0 }) }
        case .answerHistory(let id, let result): pages.removeValue(forKey: id)?.completeWith(result.mapError { $0 })
        }
    }

    private func address(resuming: Bool) -> String {
        let address = keepsToNode ? machine.firstToken.map { NodeKey.address(url, of: $0) } ?? url : url
        return resuming ? address + "&resume=1" : address
    }

    private func emit(_ event: MartletEvent) {
        events.yield(event)
        guard case .state(let state) = event else { return }
        figures.set(state)
        states.yield(state)
        if case .online = state { distrustsNode = false }
        guard case .closed = state else { return }
        ticking?.cancel()
        events.finish()
        states.finish()
    }

    private func askForToken() {
        generation += 1
        ask { engine, answer in
            switch answer {
            case .success(let token): engine.run { $0.connect(withToken: token, now: Self.now()) }
            case .failure(let error): engine.lost(code: 1006, reason: "no token: \(error)")
            }
        }
    }

    private func askForRenewal() {
        ask { engine, answer in
            engine.run { machine in
                if case .success(let token) = answer { return machine.renew(withToken: token, now: Self.now()) }
                machine.renewalFailed(now: Self.now())
                return []
            }
        }
    }

    /// Asks the user's provider; what comes when the connection is another is dropped.
    private func ask(_ told: @escaping @Sendable (ClientEngine, Result<String, any Error>) -> Void) {
        guard let provider else { return }
        let generation = generation
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        let eventLoop = eventLoop
        asking = Task {
            let answer: Result<String, any Error>
            do {
                answer = .success(try await provider())
            } catch {
                answer = .failure(error)
            }
            eventLoop.execute {
                guard bound.value.generation == generation else { return }
                told(bound.value, answer)
            }
        }
    }

    private func connect(through router: String) {
        guard locatesNode, !distrustsNode else {
            distrustsNode = false
            return connect(to: router)
        }
        generation += 1
        let generation = generation
        NodeLocator.locate(router, tls: tls, on: eventLoop).assumeIsolated().whenComplete { located in
            guard generation == self.generation else { return }
            guard case .success(let node?) = located else { return self.connect(to: router) }
            self.distrustsNode = true
            self.connect(to: node, orElse: router)
        }
    }

    /// - Parameter fallback: where to connect when this fails, whatever the reason.
    private func connect(to url: String, orElse fallback: String? = nil) {
        generation += 1
        let generation = generation
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        var limits = WebSocketLimits()
        if fallback != nil { limits.connectTimeout = NodeLocator.patience }
        limits.maximumMessageBytes = 16 * 1024 * 1024  // a page of history is a hundred messages
        WebSocketClient.connect(
            url: url, tls: tls, subprotocols: ["martlet.v1.json"], on: eventLoop, limits: limits,
            delegate: { bound.value.opened($0, generation: generation) }
        ).assumeIsolated().whenFailure { error in
            guard generation == self.generation else { return }
            if let fallback { return self.connect(to: fallback) }
            let refusal = error as? WebSocketClientError
            guard let refusal, let final = Self.finalAnswer(in: refusal) else {
                return self.lost(code: 1006, reason: "\(error)", wait: refusal.map(Self.retryAfter) ?? 0)
            }
            self.connection = nil
            self.generation += 1
            self.run { $0.finish(code: final.status, reason: final.reason) }
        }
    }

    private func opened(_ connection: WebSocketConnection, generation: Int) -> Link {
        if generation == self.generation {
            self.connection = connection
            eventLoop.assumeIsolated().execute {
                guard generation == self.generation else { return }
                self.run { $0.opened() }
            }
        } else {
            eventLoop.execute { connection.abort() }
        }
        return Link(engine: self, generation: generation)
    }

    /// An answer that will not change when the same request is made again: 4xx, but for those that ask to wait.
    private static func finalAnswer(in error: WebSocketClientError) -> (status: Int, reason: String)? {
        guard error.code != .invalidURL else { return (400, error.message) }
        guard let response = error.response else { return nil }
        let status = Int(response.status.code)
        guard (400..<500).contains(status), status != 408, status != 425, status != 429 else { return nil }
        let sentence = JSONObject(Array(response.body.readableBytesView))?.object("error")?.string("message")
        return (status, sentence ?? error.message)
    }

    /// Milliseconds, an hour at most; 0 where the server did not say. It never says a date.
    private static func retryAfter(_ refusal: WebSocketClientError) -> Int64 {
        let seconds = refusal.response?.headers.first(name: "retry-after").flatMap { Int64($0) } ?? 0
        return 1000 * min(max(0, seconds), 3600)
    }

    private func lost(code: Int, reason: String, wait: Int64 = 0) {
        connection = nil
        generation += 1
        run { $0.lost(code: code, reason: reason, now: Self.now(), random: .random(in: 0..<1), wait: wait) }
    }

    private static func now() -> Int64 {
        Int64(NIODeadline.now().uptimeNanoseconds / 1_000_000)
    }

    /// One socket's delegate.
    private final class Link: WebSocketDelegate {
        private weak var engine: ClientEngine?
        private let generation: Int

        init(engine: ClientEngine, generation: Int) {
            self.engine = engine
            self.generation = generation
        }

        private var current: ClientEngine? {
            engine?.generation == generation ? engine : nil
        }

        func webSocket(_ connection: WebSocketConnection, receivedText text: ByteBuffer) {
            guard let engine = current else { return }
            let bytes = Array(text.readableBytesView)
            guard let frame = ServerFrame(decoding: bytes) else {
                // Not a Martlet server, or not one that this client understands.
                return connection.close(
                    code: WebSocketCloseCode.invalidPayload, reason: "not a frame of martlet.v1.json")
            }
            engine.run { $0.received(frame, now: ClientEngine.now()) }
        }

        func webSocketClosed(_ connection: WebSocketConnection, code: UInt16, reason: String) {
            current?.lost(code: Int(code), reason: reason)
        }
    }
}
