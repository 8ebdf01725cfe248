import Glibc
import NIOCore
import Synchronization
package import WebSocketTransport

/// The addresses of this machine from which a router dials nodes, in turn: each is good for as many connections to one address
/// and port of a node as there are ephemeral ports (ip(7), ip_local_port_range).
///
/// The kernel chooses the port when it knows the other end (ip(7), IP_BIND_ADDRESS_NO_PORT), so that one port serves for
/// connections to several nodes.
package final class NodeSources: Sendable {
    package struct NotOfThisMachine: Error {
        package let address: IPAddress
    }

    private struct Source {
        let address: IPAddress
        /// With port 0.
        let socketAddress: SocketAddress
    }

    private let ipv4: [Source]
    private let ipv6: [Source]
    private let turns = Atomic(0)

    package init(_ addresses: [IPAddress]) throws(NotOfThisMachine) {
        var sources: [Source] = []
        for address in addresses {
            guard let source = try? SocketAddress(ipAddress: address.description, port: 0), Self.canBind(source) else {
                throw NotOfThisMachine(address: address)
            }
            sources.append(Source(address: address, socketAddress: source))
        }
        ipv4 = sources.filter(\.address.isIPv4)
        ipv6 = sources.filter { !$0.address.isIPv4 }
    }

    private static func canBind(_ address: SocketAddress) -> Bool {
        let family = address.protocol == .inet6 ? AF_INET6 : AF_INET
        let descriptor = socket(family, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return address.withSockAddr { Glibc.bind(descriptor, $0, socklen_t($1)) } == 0
    }

    func next() -> Turn { Turn(sources: self, first: turns.add(1, ordering: .relaxed).oldValue, tried: 0) }

    /// One connection's way through the addresses.
    struct Turn: Sendable {
        fileprivate let sources: NodeSources
        fileprivate let first: Int
        fileprivate let tried: Int

        /// For the address behind this one; nil when each has been tried.
        var after: Turn? {
            guard tried + 1 < max(sources.ipv4.count, sources.ipv6.count) else { return nil }
            return Turn(sources: sources, first: first, tried: tried + 1)
        }

        /// A socket of a family without a source is left to the kernel.
        ///
        /// - Throws: ``NotOfThisMachine`` when the machine has lost the address since it was named, else `IOError`.
        func bind(_ descriptor: CInt) throws {
            let list = try SystemCall.option(SO_DOMAIN, of: descriptor) == AF_INET6 ? sources.ipv6 : sources.ipv4
            guard !list.isEmpty else { return }
            try SystemCall.set(Int32(IPPROTO_IP), IP_BIND_ADDRESS_NO_PORT, to: 1, of: descriptor)
            let source = list[Int(UInt(bitPattern: first &+ tried) % UInt(list.count))]
            do {
                try SystemCall.check(
                    "bind", source.socketAddress.withSockAddr { Glibc.bind(descriptor, $0, socklen_t($1)) })
            } catch let error as IOError where error.errnoCode == EADDRNOTAVAIL {
                // connect(2) says the same of an address without a port to give.
                throw NotOfThisMachine(address: source.address)
            }
        }
    }
}
