import NIOCore
import NIOPosix
import TLSClient
import WebSocketTransport

extension Exchange {
    /// Whether bytes of the client are of use now: a body to pass on, and a node that takes it. The client's going away is
    /// noticed without reading.
    var takesRequestBytes: Bool { !requestBody.hasEnded && (node?.isWritable ?? false) }
}

extension ClientConnection {
    func perform(_ action: RouteAttempt.Action, _ exchange: Exchange) {
        switch action {
        case .dial(let node):
            count(exchange, at: node)
            exchange.traffic = nil
            if mayHandOver(exchange, to: node) {
                handOver(exchange, to: node)
            } else if let connection = kept(for: exchange, to: node) {
                core.reused()
                send(exchange, to: node, over: connection)
            } else {
                dial(node, exchange)
            }
        case .relay: break
        case .fail(.noNode): fail(exchange, .noNode(retryAfter: core.nodes.retryAfter(now: .now())))
        case .fail(.badGateway): fail(exchange, .badGateway)
        case .fail(.gatewayTimeout): fail(exchange, .gatewayTimeout)
        }
    }

    /// An upgrade counts at the node that is tried, and at no other.
    private func count(_ exchange: Exchange, at node: RoutedNode) {
        guard exchange.request.isUpgrade, exchange.pick?.node != node else { return }
        giveBack(exchange)
        exchange.pick = core.take(node)
    }

    /// No node has accepted it.
    func giveBack(_ exchange: Exchange) {
        guard let pick = exchange.pick else { return }
        exchange.pick = nil
        core.giveBack(pick)
    }

    private func fail(_ exchange: Exchange, _ response: RouterResponse) {
        giveBack(exchange)
        log(exchange, status: response.status)
        // What follows an upgrade is no HTTP, and the rest of a body that nobody took no request.
        answer(
            response,
            to: exchange.request,
            closes: exchange.closes || exchange.request.isUpgrade || !exchange.requestBody.hasEnded
        )
        process()
    }

    // MARK: To the node

    /// Only for what may be sent again: the node may be closing it at this moment.
    private func kept(for exchange: Exchange, to node: RoutedNode) -> NodeConnection? {
        guard exchange.attempt.mayRepeat, !exchange.request.isUpgrade, let context else { return nil }
        return core.kept.on(context.eventLoop)?.take(node.address)
    }

    /// The answer came whole. Where the node did not take the whole request, the next one would be read as the rest of it.
    private func keep(_ node: NodeConnection, after exchange: Exchange) {
        guard node.isIdle, exchange.requestBody.hasEnded, !core.isDraining, let context,
            let kept = core.kept.on(context.eventLoop)
        else { return node.abandon() }
        kept.keep(node)
    }

    func dial(_ node: RoutedNode, _ exchange: Exchange) {
        guard let context else { return }
        let began = NIODeadline.now()
        let dialer = core.dialer
        let header = dialer.writesProxyProtocol ? proxyHeader(exchange.request, context) : nil
        let connecting = dialer.dial(node, on: context.eventLoop, saying: header, within: limits.connectTime)
        connecting.assumeIsolated().whenComplete { result in
            let isCurrent = self.isUnderWay(exchange)
            switch result {
            case .success(let channel):
                guard isCurrent else { return channel.close(promise: nil) }
                guard let connection = try? channel.pipeline.syncOperations.handler(type: NodeConnection.self) else {
                    return self.connectFailed(ChannelError.ioOnClosedChannel, exchange, node)
                }
                guard dialer.tls != nil else { return self.send(exchange, to: node, over: connection, began) }
                self.secure(connection, exchange, node, began)
            case .failure(let error): self.connectFailed(error, exchange, node)
            }
        }
    }

    private func proxyHeader(_ request: ProxiedRequest, _ context: ChannelHandlerContext) -> ByteBuffer {
        func end(_ address: SocketAddress?) -> (IPAddress, port: Int) {
            (address?.ipAddress.flatMap { IPAddress($0) } ?? .unspecified, address?.port ?? 0)
        }
        let peer = end(context.remoteAddress)
        // Behind a proxy nobody knows the client's port.
        let client = request.client == peer.0 ? peer : (request.client, port: 0)
        return ProxyProtocol.header(
            from: client, to: end(context.localAddress), isSecure: isSecure || request.isSecureAtProxy,
            id: request.id)
    }

    /// A request is sent once the node has shown who it is: until then another may have it, whatever it is.
    private func secure(
        _ connection: NodeConnection, _ exchange: Exchange, _ node: RoutedNode, _ began: NIODeadline
    ) {
        connection.whenSecure(within: limits.connectTime) { [weak self] result in
            guard let self, self.isUnderWay(exchange) else { return connection.abandon() }
            switch result {
            case .success: self.send(exchange, to: node, over: connection, began)
            case .failure(let error):
                connection.abandon()
                self.connectFailed(error, exchange, node)
            }
        }
    }

    private func connectFailed(_ error: any Error, _ exchange: Exchange, _ node: RoutedNode) {
        core.failed(node, error)
        if isUnderWay(exchange) { perform(exchange.attempt.connectFailed(), exchange) }
    }

    func isUnderWay(_ exchange: Exchange) -> Bool {
        if case .exchange(let current) = state { current === exchange } else { false }
    }

    private func send(
        _ exchange: Exchange, to node: RoutedNode, over connection: NodeConnection, _ began: NIODeadline? = nil
    ) {
        let meter = core.meters.meter(of: node.name)
        if let began { meter.connected(in: Double((NIODeadline.now() - began).nanoseconds) / 1e9) }
        let traffic = ProxiedTraffic(meter)
        exchange.traffic = traffic
        exchange.node = connection
        exchange.lastProgress = .now()
        connection.clientIsWritable = isWritable
        let keepsAlive = !exchange.request.isUpgrade && core.kept.isAllowed
        connection.begin(
            exchange.request.headForNode(
                address: node.address, peer: peer, isSecure: isSecure, keepsAlive: keepsAlive),
            method: exchange.request.head.method,
            keepsAlive: keepsAlive,
            delegate: self,
            traffic: traffic
        )
        process()
        resumeReading()
    }

    func pumpRequestBody(_ exchange: Exchange) {
        guard let node = exchange.node, !exchange.requestBody.hasEnded else { return }
        do throws(HTTPFault) {
            pump: while node.isWritable {
                guard let piece = try exchange.requestBody.next(&inbound) else {
                    if inbound.readableBytes == 0 { inbound = ByteBuffer() }
                    if inputEnded { return close() }
                    break
                }
                exchange.lastProgress = .now()
                exchange.request.body.write(piece) { node.write($0) }
                if piece == .end { break pump }
            }
        } catch {
            exchange.node = nil
            node.abandon()
            if exchange.answerHasBegun { close() } else { fail(exchange, .refusal(of: error)) }
            return
        }
        node.flush()
        resumeReading()
    }

    // MARK: Deadlines

    /// Looks again when the time is up since the last progress, not at each byte.
    func watchProgress(of exchange: Exchange) {
        let left = exchange.lastProgress + exchange.patience(limits) - .now()
        setTimer(left) { connection in
            guard connection.isUnderWay(exchange) else { return }
            if NIODeadline.now() - exchange.lastProgress >= exchange.patience(connection.limits) {
                connection.progressEnded(exchange)
            } else {
                connection.watchProgress(of: exchange)
            }
        }
    }

    private func progressEnded(_ exchange: Exchange) {
        // The client left its body or its answer lying.
        guard !exchange.answerHasBegun, exchange.requestBody.hasEnded else { return close() }
        // A connect has a deadline of its own.
        guard let node = exchange.node else { return watchAgain(exchange) }
        exchange.node = nil
        node.abandon()
        if node.isReused, !node.hasHeard, let current = exchange.attempt.current {
            // What lies between may have forgotten the connection, which says nothing of the node.
            watchAgain(exchange)
            return dial(current, exchange)
        }
        if let ill = exchange.attempt.current { core.hung(ill) }
        perform(exchange.attempt.timedOut(), exchange)
        if isUnderWay(exchange) { watchAgain(exchange) }
    }

    private func watchAgain(_ exchange: Exchange) {
        exchange.lastProgress = .now()
        watchProgress(of: exchange)
    }
}

// MARK: From the node

extension ClientConnection: NodeConnectionDelegate {
    func node(_ node: NodeConnection, answered head: ResponseHead) {
        guard case .exchange(let exchange) = state, exchange.node === node else { return }
        exchange.lastProgress = .now()
        // That a kept connection lives does not show that the node takes others.
        if !node.isReused, let answering = exchange.attempt.current { core.answered(answering) }
        if head.status == 101 {
            guard exchange.request.isUpgrade, head.acceptsWebSocket else {
                exchange.node = nil
                node.abandon()
                return fail(exchange, .badGateway)
            }
            return accept(exchange, node, head)
        }
        if head.status < 200 {
            if exchange.request.head.minorVersion == 1, !exchange.request.isUpgrade {
                write(head.headForClient(framing: .none, keepsLength: false, closes: false, cookie: nil))
                context?.flush()
            }
            return
        }
        if exchange.request.isUpgrade, let cause = AnomalyCause(refusedUpgrade: head.status) {
            core.gate.note(cause, of: exchange.request.client)
        }
        let action = exchange.attempt.answered(status: head.status)
        guard action == .relay else {
            exchange.node = nil
            node.abandon()
            return perform(action, exchange)
        }
        relay(head, exchange)
    }

    private func relay(_ head: ResponseHead, _ exchange: Exchange) {
        giveBack(exchange)
        // Was checked when the node's connection chose how to read the body.
        guard var framing = try? head.bodyLength(answering: exchange.request.head.method) else { return close() }
        let hasNoBody = exchange.request.head.method == "HEAD" || head.status == 304
        if framing == .untilClose { framing = .chunked }
        if framing == .chunked, exchange.request.head.minorVersion == 0 { framing = .untilClose }
        exchange.framing = framing
        exchange.status = head.status
        if exchange.request.isUpgrade || framing == .untilClose || core.isDraining { exchange.closes = true }
        write(
            head.headForClient(
                framing: framing,
                keepsLength: hasNoBody,
                closes: exchange.closes,
                cookie: cookie(for: exchange)
            )
        )
    }

    func cookie(for exchange: Exchange) -> String? {
        guard exchange.request.affinity.wantsCookie, let node = exchange.attempt.current else { return nil }
        return AffinityKey.setCookie(
            core.cookie(for: node), isSecure: isSecure || exchange.request.isSecureAtProxy)
    }

    func node(_ node: NodeConnection, sent piece: BodyDecoder.Piece) {
        guard case .exchange(let exchange) = state, exchange.node === node, let framing = exchange.framing else {
            return
        }
        exchange.lastProgress = .now()
        framing.write(piece) { write($0) }
        guard piece == .end else { return }
        exchange.node = nil
        keep(node, after: exchange)
        log(exchange, status: exchange.status)
        context?.flush()
        // The node did not wait for the whole request; what is left of it is no request.
        if exchange.closes || !exchange.requestBody.hasEnded {
            linger()
        } else {
            awaitNextRequest()
            process()
        }
    }

    func nodeReadComplete(_ node: NodeConnection) { context?.flush() }

    func nodeIsWritable(_ node: NodeConnection) {
        guard case .exchange(let exchange) = state, exchange.node === node else { return }
        process()
        resumeReading()
    }

    func nodeBroke(_ node: NodeConnection) {
        guard case .exchange(let exchange) = state, exchange.node === node else { return }
        exchange.node = nil
        if node.isReused, !node.hasHeard, let current = exchange.attempt.current {
            // It ended while nobody used it, which says nothing of the node.
            return dial(current, exchange)
        }
        if let broken = exchange.attempt.current {
            if let failure = node.tlsFailure {
                core.failed(broken, failure)
            } else if exchange.request.isUpgrade, !node.hasHeard {
                core.broke(broken)
            }
        }
        // Cut short: a client must not take what it has for the whole answer.
        if exchange.answerHasBegun { return close() }
        perform(exchange.attempt.broke(), exchange)
    }
}
