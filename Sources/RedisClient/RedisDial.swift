import Glibc
import NIOCore
import NIOPosix
import TLSClient

/// Connects a socket; another stands in for it in tests.
typealias RedisDial = @Sendable (RedisConfiguration, any EventLoop) -> EventLoopFuture<any Channel>

@Sendable func dialRedis(_ configuration: RedisConfiguration, on eventLoop: any EventLoop) -> EventLoopFuture<
    any Channel
> {
    guard let options = configuration.tls else { return connectRedis(configuration, nil, on: eventLoop) }
    // At each dial, so that a certificate that was renewed counts from then on; reading files would hold up the loop.
    return NIOThreadPool.singleton.runIfActive(eventLoop: eventLoop) { try options.load() }
        .flatMap { connectRedis(configuration, $0, on: eventLoop) }
}

/// - Parameter tls: nil speaks plainly.
private func connectRedis(
    _ configuration: RedisConfiguration, _ tls: TLSClient?, on eventLoop: any EventLoop
) -> EventLoopFuture<any Channel> {
    let bootstrap = ClientBootstrap(group: eventLoop)
        .connectTimeout(configuration.connectTimeout)
        .channelOption(.socketOption(.so_keepalive), value: 1)
        // A Redis that stopped reading is noticed by its silence long before this much has piled up.
        .channelOption(.writeBufferWaterMark, value: .init(low: 32 << 20, high: 64 << 20))
    switch configuration.address {
    case .host(let host, let port):
        return
            bootstrap
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try tls?.secure(channel, host: host) }
            }
            .channelOption(.tcpOption(.tcp_nodelay), value: 1).connect(host: host, port: port)
    case .unixSocket(let path):
        return bootstrap.connect(unixDomainSocketPath: path)
    }
}

/// What went wrong with a socket, as words for a sentence.
func describeConnectionFailure(_ error: any Error) -> String {
    switch error {
    case let error as IOError:
        return String(cString: strerror(error.errnoCode)).lowercased()
    case let error as NIOConnectionError:
        if let first = error.connectionErrors.first {
            return describeConnectionFailure(first.error)
        }
        if error.dnsAError != nil || error.dnsAAAAError != nil {
            return "the name \(error.host) is not known"
        }
        return "no address of \(error.host) can be reached"
    case ChannelError.connectTimeout:
        return "no answer in time"
    default:
        return String(describing: error)
    }
}
