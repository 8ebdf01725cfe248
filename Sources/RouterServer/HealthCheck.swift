import Glibc
import NIOCore
import NIOPosix
import TLSClient
import WebSocketTransport

/// One question `GET /readyz` to a node, on a connection of its own, as a new client would have one: a connection that was
/// kept would not show that the node takes no more.
///
/// Confined to the loop that it is asked on.
final class HealthCheck: NodeConnectionDelegate {
    enum Outcome: Sendable, Equatable {
        case passed
        case failed(CheckFailure)
        /// This machine stood still when the answer was due.
        case unknown
    }

    /// A deadline that comes so much too late says nothing of the node.
    private static let lateness: TimeAmount = .milliseconds(250)

    private let host: String
    private let outcome: EventLoopPromise<Outcome>
    private var connection: NodeConnection?
    private var timer: Scheduled<Void>?
    private var hasEnded = false

    /// Fails when this machine could not ask.
    static func ask(
        _ node: RoutedNode, on eventLoop: any EventLoop, by dialer: NodeDialer, within time: TimeAmount
    ) -> EventLoopFuture<Outcome> {
        eventLoop.assertInEventLoop()
        let check = HealthCheck(host: node.address, outcome: eventLoop.makePromise())
        check.connect(node, on: eventLoop, by: dialer, within: time)
        return check.outcome.futureResult
    }

    private init(host: String, outcome: EventLoopPromise<Outcome>) {
        (self.host, self.outcome) = (host, outcome)
    }

    private func connect(
        _ node: RoutedNode, on eventLoop: any EventLoop, by dialer: NodeDialer, within time: TimeAmount
    ) {
        let deadline = NIODeadline.now() + time
        // Holds on to this check until it has ended.
        timer = eventLoop.assumeIsolated().scheduleTask(deadline: deadline) {
            self.end(NIODeadline.now() - deadline > Self.lateness ? .unknown : .failed(.silent))
        }
        let connecting = dialer.dial(
            node, on: eventLoop, saying: dialer.writesProxyProtocol ? ProxyProtocol.localHeader : nil,
            within: time + .seconds(1))
        connecting.assumeIsolated().whenComplete { result in
            switch result {
            case .success(let channel):
                guard !self.hasEnded,
                    let connection = try? channel.pipeline.syncOperations.handler(type: NodeConnection.self)
                else { return channel.close(promise: nil) }
                self.connection = connection
                guard dialer.tls != nil else { return self.ask() }
                connection.whenSecure(within: time) { result in
                    if case .failure = result { self.end(.failed(.broken)) } else { self.ask() }
                }
            case .failure(let error):
                guard ConnectFailure.isOfNode(error) else { return self.end(.failure(error)) }
                self.end(.failed(ConnectFailure.isRefusal(error) ? .refused : .unreachable))
            }
        }
    }

    private func ask() {
        guard !hasEnded, let connection else { return }
        let head = "GET /readyz HTTP/1.1\r\nHost: \(host)\r\nConnection: close\r\n\r\n"
        connection.begin(ByteBuffer(string: head), method: "GET", delegate: self)
    }

    private func end(_ result: Outcome) { end(.success(result)) }

    private func end(_ result: Result<Outcome, any Error>) {
        guard !hasEnded else { return }
        hasEnded = true
        timer?.cancel()
        let connection = connection
        self.connection = nil
        connection?.abandon()
        outcome.completeWith(result)
    }

    // MARK: NodeConnectionDelegate

    func node(_ node: NodeConnection, answered head: ResponseHead) {
        switch head.status {
        case 200: end(.passed)
        case 100, 102..<200: break
        default: end(.failed(.notReady(head.status)))
        }
    }

    func node(_ node: NodeConnection, sent piece: BodyDecoder.Piece) {}

    func nodeReadComplete(_ node: NodeConnection) {}

    func nodeIsWritable(_ node: NodeConnection) {}

    func nodeBroke(_ node: NodeConnection) { end(.failed(.broken)) }
}
