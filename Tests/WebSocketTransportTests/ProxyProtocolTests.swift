import NIOCore
import NIOEmbedded
import Testing

@testable import WebSocketTransport

@Suite("The PROXY protocol, version 2")
struct ProxyProtocolTests {
    private func bytes(_ command: UInt8, _ family: UInt8, _ rest: [UInt8], length: Int? = nil) -> [UInt8] {
        let length = length ?? rest.count
        return [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A, command, family]
            + [UInt8(length >> 8), UInt8(length & 0xFF)] + rest
    }

    private func read(_ bytes: [UInt8]) throws -> (header: ProxyProtocol.Header?, rest: [UInt8]) {
        var buffer = ByteBuffer(bytes: bytes)
        let header = try ProxyProtocol.read(&buffer)
        return (header, Array(buffer.readableBytesView))
    }

    private let four: [UInt8] = [203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x34, 0x1F, 0x90]
    private let six: [UInt8] =
        [0x20, 0x01, 0x0D, 0xB8] + Array(repeating: 0, count: 11) + [9] + Array(repeating: 0, count: 15) + [1]
        + [0x12, 0x34, 0x1F, 0x90]

    @Test("says whose a connection is, and leaves what stands behind it")
    func client() throws {
        let tail: [UInt8] = Array("GET".utf8)
        #expect(try read(bytes(0x21, 0x11, four) + tail) == (.client(try #require(IPAddress("203.0.113.7"))), tail))
        #expect(try read(bytes(0x21, 0x21, six) + tail) == (.client(try #require(IPAddress("2001:db8::9"))), tail))
        // TLV vectors behind the addresses (section 2.2.7) are passed over.
        let vector: [UInt8] = [0x04, 0x00, 0x02, 0xAA, 0xBB]
        #expect(try read(bytes(0x21, 0x11, four + vector) + tail).rest == tail)
    }

    @Test("LOCAL is the balancer's own, whatever addresses it has")
    func local() throws {
        for family in [0x00, 0x11, 0x31, 0xFF] as [UInt8] {
            #expect(try read(bytes(0x20, family, four)) == (.local, []))
        }
        #expect(try read(bytes(0x20, 0x00, [])) == (.local, []))
    }

    @Test("T16: a client whose addresses are none of TCP over IP is unknown, and not the balancer")
    func unknown() throws {
        for family in [0x00, 0x01, 0x10, 0x12, 0x22, 0x31, 0x32] as [UInt8] {
            for rest in [[], four, six] {
                #expect(try read(bytes(0x21, family, rest) + [0x47]) == (.client(.unspecified), [0x47]))
            }
        }
        for family in [0x41, 0x13, 0xFF] as [UInt8] {
            #expect(throws: ProxyProtocol.Malformed.self) { try read(bytes(0x21, family, four)) }
        }
    }

    @Test("each beginning of a header is waited on, and what is none is an error at its first wrong byte")
    func pieces() throws {
        let whole = bytes(0x21, 0x11, four)
        for count in 0..<whole.count {
            let piece = Array(whole[..<count])
            #expect(try read(piece) == (nil, piece))
        }
        for wrong in [
            Array("GET / HTTP/1.1\r\n".utf8), Array("PROXY TCP4 ".utf8), [0x16], bytes(0x11, 0x11, four),
            bytes(0x22, 0x11, four),
            bytes(0x21, 0x11, Array(four.dropLast())), bytes(0x21, 0x21, four), bytes(0x21, 0x11, [], length: 4097),
        ] {
            #expect(throws: ProxyProtocol.Malformed.self) { try read(wrong) }
        }
    }

    @Test("a header that is written is read")
    func written() throws {
        let addresses = try ["192.0.2.1", "2001:db8::1"].map { try #require(IPAddress($0)) }
        for client in addresses {
            for server in addresses {
                var header = ProxyProtocol.header(from: (client, 40000), to: (server, 443))
                #expect(try ProxyProtocol.read(&header) == .client(client))
                #expect(header.readableBytes == 0)
            }
        }
    }

    @Test("with it go whether the client speaks TLS and the connection's name; a field that is cut is an error")
    func fields() throws {
        let client = try #require(IPAddress("203.0.113.7"))
        for isSecure in [false, true] {
            for id in [nil, "a-1", String(repeating: "x", count: 128)] {
                var header = ProxyProtocol.header(
                    from: (client, 40000), to: (.loopback, 443), isSecure: isSecure, id: id)
                #expect(try ProxyProtocol.read(&header) == .client(client, isSecure: isSecure, id: id))
                #expect(header.readableBytes == 0)
            }
        }
        var long = ProxyProtocol.header(
            from: (client, 40000), to: (.loopback, 443), id: String(repeating: "x", count: 129))
        #expect(try ProxyProtocol.read(&long) == .client(client))
        // As HAProxy writes it: TLS by the client, with the version as a field within the field.
        let tls: [UInt8] = [0x20, 0x00, 0x0F, 0x01, 0, 0, 0, 1, 0x21, 0x00, 0x07] + Array("TLSv1.3".utf8)
        #expect(try read(bytes(0x21, 0x11, four + tls)).header == .client(client, isSecure: true))
        for cut in [[0x20], [0x20, 0x00], [0x05, 0x00, 0x02, 0x41]] as [[UInt8]] {
            #expect(throws: ProxyProtocol.Malformed.self) { try read(bytes(0x21, 0x11, four + cut)) }
        }
    }

    @Test("in a pipeline it comes off in pieces, tells, passes the rest on and goes")
    func pipeline() throws {
        final class Events: ChannelInboundHandler {
            typealias InboundIn = ByteBuffer
            var all: [ProxyProtocol.Header] = []
            func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
                if let header = event as? ProxyProtocol.Header { all.append(header) }
            }
        }
        let events = Events()
        let channel = EmbeddedChannel(handlers: [ProxyProtocolReader(), events])
        let client = try #require(IPAddress("203.0.113.7"))
        for byte in bytes(0x21, 0x11, four) + Array("hi".utf8) { try channel.writeInbound(ByteBuffer(bytes: [byte])) }
        #expect(events.all == [.client(client)])
        #expect(throws: (any Error).self) {
            try channel.pipeline.syncOperations.handler(type: ProxyProtocolReader.self)
        }
        var passed: [UInt8] = []
        while let buffer = try channel.readInbound(as: ByteBuffer.self) { passed += Array(buffer.readableBytesView) }
        #expect(passed == Array("hi".utf8))
        _ = try? channel.finish()
        let bad = EmbeddedChannel(handlers: [ProxyProtocolReader()])
        try bad.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
        _ = try? bad.writeInbound(ByteBuffer(string: "GET / HTTP/1.1\r\n"))
        #expect(!bad.isActive)
        _ = try? bad.finish()
    }
}
