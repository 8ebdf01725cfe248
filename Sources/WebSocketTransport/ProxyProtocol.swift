package import NIOCore

/// The PROXY protocol, version 2 (haproxy.org, "The PROXY protocol", section 2.2): what a load balancer that does not look into
/// connections writes before each, so that the server learns whose it is. Of its text form, version 1, nothing is read.
package enum ProxyProtocol {
    package struct Malformed: Error, Equatable {
        package let reason: String
    }

    /// What a header says.
    package enum Header: Equatable, Sendable {
        /// A connection of the load balancer's own (command LOCAL), as for health checks.
        case local
        /// A connection that it took from a client: ``IPAddress/unspecified`` where its addresses are none of TCP over IP (UNSPEC,
        /// UNIX, UDP). The specification leaves a receiver free to take the balancer for the client then; but that would be trusted.
        ///
        /// - `isSecure`: the client speaks TLS with the load balancer.
        /// - `id`: names the connection, in 1–128 bytes, where the load balancer has named it.
        case client(IPAddress, isSecure: Bool = false, id: String? = nil)
    }

    /// What may stand behind the addresses (section 2.2.1 and following), as far as it is read or written.
    private enum Field: UInt8 {
        /// PP2_TYPE_UNIQUE_ID: up to 128 bytes.
        case id = 0x05
        /// PP2_TYPE_SSL: a byte of flags, four of the outcome of verifying the client's certificate, and more fields.
        case tls = 0x20
    }
    /// PP2_CLIENT_SSL.
    private static let clientSpeaksTLS: UInt8 = 0x01

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
        var content = bytes.getSlice(at: start + 16, length: length) ?? ByteBuffer()
        bytes.moveReaderIndex(forwardBy: 16 + length)
        if bytes.readableBytes == 0 { bytes.clear() }
        guard command == 0x21 else { return .local }
        // Up to UNIX, and up to datagrams.
        guard family >> 4 <= 3, family & 0x0F <= 2 else {
            throw Malformed(reason: "its header of the PROXY protocol has addresses of no kind that there is")
        }
        guard family == 0x11 || family == 0x21 else { return .client(.unspecified) }
        let width = family == 0x11 ? 4 : 16
        guard let client = content.readBytes(length: width), content.readSlice(length: width + 4) != nil else {
            throw Malformed(reason: "its header of the PROXY protocol is too short for its addresses")
        }
        let (isSecure, id) = try fields(&content)
        return .client(IPAddress(bytes: client), isSecure: isSecure, id: id)
    }

    private static func fields(_ content: inout ByteBuffer) throws(Malformed) -> (isSecure: Bool, id: String?) {
        var (isSecure, id) = (false, String?.none)
        while let type = content.readInteger(as: UInt8.self) {
            guard let length = content.readInteger(as: UInt16.self), var value = content.readSlice(length: Int(length))
            else {
                throw Malformed(reason: "its header of the PROXY protocol ends within a field")
            }
            switch Field(rawValue: type) {
            case .id: id = (1...128).contains(value.readableBytes) ? String(buffer: value) : nil
            case .tls: isSecure = value.readInteger(as: UInt8.self).map { $0 & clientSpeaksTLS != 0 } ?? false
            case nil: break
            }
        }
        return (isSecure, id)
    }

    /// The header of a connection that a proxy makes for itself (command LOCAL), as for its health checks.
    package static var localHeader: ByteBuffer { ByteBuffer(bytes: signature + [0x20, 0x00, 0x00, 0x00]) }

    /// A header of a TCP connection; where one address is IPv4 and the other is not, both are written as IPv6.
    ///
    /// - Parameters:
    ///   - isSecure: the client speaks TLS with this server.
    ///   - id: names the connection; nil, or one of more than 128 bytes: no name is written.
    package static func header(
        from client: (IPAddress, port: Int), to server: (IPAddress, port: Int), isSecure: Bool = false,
        id: String? = nil
    ) -> ByteBuffer {
        let isIPv4 = client.0.isIPv4 && server.0.isIPv4
        var fields = ByteBuffer()
        if let id, (1...128).contains(id.utf8.count) {
            fields.writeInteger(Field.id.rawValue)
            fields.writeInteger(UInt16(id.utf8.count))
            fields.writeString(id)
        }
        if isSecure {
            fields.writeInteger(Field.tls.rawValue)
            fields.writeInteger(UInt16(5))
            fields.writeInteger(clientSpeaksTLS)
            // Not 0: the client showed no certificate that was verified.
            fields.writeInteger(UInt32(1))
        }
        var out = ByteBuffer(bytes: signature)
        out.writeInteger(UInt8(0x21))
        out.writeInteger(UInt8(isIPv4 ? 0x11 : 0x21))
        out.writeInteger(UInt16((isIPv4 ? 12 : 36) + fields.readableBytes))
        for address in [client.0, server.0] {
            if !isIPv4 { out.writeInteger(address.high) }
            if isIPv4 {
                out.writeInteger(UInt32(truncatingIfNeeded: address.low))
            } else {
                out.writeInteger(address.low)
            }
        }
        for port in [client.port, server.port] { out.writeInteger(UInt16(truncatingIfNeeded: port)) }
        out.writeImmutableBuffer(fields)
        return out
    }
}

/// First in the pipeline of a connection from a load balancer that writes the PROXY protocol; it takes the header off, tells what
/// it says as a user event, and goes. A connection that begins with anything else is closed.
package final class ProxyProtocolReader: ChannelInboundHandler, RemovableChannelHandler {
    package typealias InboundIn = ByteBuffer
    package typealias InboundOut = ByteBuffer

    private var bytes = ByteBuffer()
    private var isRead = false
    /// Of this read something is behind the header.
    private var hasPassed = false

    package init() {}

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isRead else {
            hasPassed = true
            return context.fireChannelRead(data)
        }
        var buffer = unwrapInboundIn(data)
        bytes.writeBuffer(&buffer)
        do throws(ProxyProtocol.Malformed) {
            guard let header = try ProxyProtocol.read(&bytes) else { return }
            context.fireUserInboundEventTriggered(header)
        } catch {
            context.fireUserInboundEventTriggered(error)
            return context.close(promise: nil)
        }
        isRead = true
        hasPassed = bytes.readableBytes > 0
        if hasPassed { context.fireChannelRead(wrapInboundOut(bytes)) }
    }

    /// A read that brought nothing but the header, or a part of it, is nobody else's.
    package func channelReadComplete(context: ChannelHandlerContext) {
        if hasPassed { context.fireChannelReadComplete() }
        if isRead { context.pipeline.syncOperations.removeHandler(context: context, promise: nil) }
    }
}

/// First in the pipeline of a connection that is to begin with a header of the PROXY protocol; before TLS, too.
package final class ProxyProtocolWriter: ChannelOutboundHandler, RemovableChannelHandler {
    package typealias OutboundIn = ByteBuffer
    package typealias OutboundOut = ByteBuffer

    private var header: ByteBuffer?

    package init(_ header: ByteBuffer) { self.header = header }

    package func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        if let header { context.write(wrapOutboundOut(header), promise: nil) }
        header = nil
        context.write(data, promise: promise)
    }

    /// Not before: a flush does not find its way past a handler that has gone.
    package func flush(context: ChannelHandlerContext) {
        context.flush()
        if header == nil { context.pipeline.syncOperations.removeHandler(context: context, promise: nil) }
    }
}
