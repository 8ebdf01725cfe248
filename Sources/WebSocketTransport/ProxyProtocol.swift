package import NIOCore

/// The PROXY protocol, version 2 (haproxy.org, "The PROXY protocol", section 2.2): what a load balancer that does not look into
/// connections writes before each, so that the server learns whose it is. Of its text form, version 1, nothing is read.
package enum ProxyProtocol {
    package struct Malformed: Error, Equatable {
        package let reason: String
    }

    /// What a header says.
    package enum Header: Equatable, Sendable {
        /// A connection of the load balancer's own, as for health checks, or one whose addresses are none of TCP over IP.
        case local
        case client(IPAddress)
    }

    private static let signature: [UInt8] = [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A]
    /// Of addresses and what follows them (TLV vectors); what is written in practice is below 600.
    private static let mostBytes = 4096

    /// Takes a header off the front of `bytes`; nil while it is not complete, and nothing is taken then.
    package static func read(_ bytes: inout ByteBuffer) throws(Malformed) -> Header? {
        let view = bytes.readableBytesView
        guard zip(view, signature).allSatisfy({ $0 == $1 }) else {
            throw Malformed(reason: "it does not begin with a header of the PROXY protocol, version 2")
        }
        guard view.count >= 16 else { return nil }
        let start = bytes.readerIndex
        guard let command = bytes.getInteger(at: start + 12, as: UInt8.self),
            let family = bytes.getInteger(at: start + 13, as: UInt8.self),
            let length = bytes.getInteger(at: start + 14, as: UInt16.self).map(Int.init)
        else { return nil }
        guard command == 0x20 || command == 0x21 else {
            throw Malformed(reason: "its header of the PROXY protocol has another version or command")
        }
        guard length <= mostBytes else { throw Malformed(reason: "its header of the PROXY protocol is too long") }
        guard view.count >= 16 + length else { return nil }
        let addresses = bytes.getBytes(at: start + 16, length: length) ?? []
        bytes.moveReaderIndex(forwardBy: 16 + length)
        if bytes.readableBytes == 0 { bytes.clear() }
        guard command == 0x21 else { return .local }
        switch family {
        case 0x11 where length >= 12: return .client(IPAddress(bytes: addresses[..<4]))
        case 0x21 where length >= 36: return .client(IPAddress(bytes: addresses[..<16]))
        case 0x11, 0x21: throw Malformed(reason: "its header of the PROXY protocol is too short for its addresses")
        default: return .local
        }
    }

    /// A header of a TCP connection; where one address is IPv4 and the other is not, both are written as IPv6.
    package static func header(from client: (IPAddress, port: Int), to server: (IPAddress, port: Int)) -> ByteBuffer {
        let isIPv4 = client.0.isIPv4 && server.0.isIPv4
        var out = ByteBuffer(bytes: signature)
        out.writeInteger(UInt8(0x21))
        out.writeInteger(UInt8(isIPv4 ? 0x11 : 0x21))
        out.writeInteger(UInt16(isIPv4 ? 12 : 36))
        for address in [client.0, server.0] {
            if !isIPv4 { out.writeInteger(address.high) }
            if isIPv4 {
                out.writeInteger(UInt32(truncatingIfNeeded: address.low))
            } else {
                out.writeInteger(address.low)
            }
        }
        for port in [client.port, server.port] { out.writeInteger(UInt16(truncatingIfNeeded: port)) }
        return out
    }
}

/// First in the pipeline of a connection from a load balancer that writes the PROXY protocol; it takes the header off, tells what
/// it says as a user event, and goes. A connection that begins with anything else is closed.
package final class ProxyProtocolReader: ChannelInboundHandler, RemovableChannelHandler {
    package typealias InboundIn = ByteBuffer
    package typealias InboundOut = ByteBuffer

    private var bytes = ByteBuffer()

    package init() {}

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var buffer = unwrapInboundIn(data)
        bytes.writeBuffer(&buffer)
        do throws(ProxyProtocol.Malformed) {
            guard let header = try ProxyProtocol.read(&bytes) else { return }
            context.fireUserInboundEventTriggered(header)
        } catch {
            context.fireUserInboundEventTriggered(error)
            return context.close(promise: nil)
        }
        let rest = bytes
        if rest.readableBytes > 0 { context.fireChannelRead(wrapInboundOut(rest)) }
        context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
    }
}
