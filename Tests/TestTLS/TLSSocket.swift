import COpenSSL
import Glibc
package import TestSupport

/// A blocking TLS client, to say what no proper client would. Reads time out after ten seconds.
///
/// `@unchecked Sendable`: used by one test, one call at a time.
package final class TLSSocket: @unchecked Sendable {
    package struct Failure: Error, CustomStringConvertible {
        package let description: String
    }

    package enum Version: Int32, Sendable {
        case tls10 = 0x0301
        case tls11 = 0x0302
        case tls12 = 0x0303
        case tls13 = 0x0304
    }

    package struct Options: Sendable {
        /// PEM; nil takes any certificate.
        package var authority: String?
        /// Whose certificate the server must have.
        package var host = "localhost"
        /// What it asks for in its hello (SNI).
        package var serverName: String?
        package var pair: Certificates.Pair?
        /// This one alone.
        package var version: Version?
        package var protocols: [String] = []
        package var receiveBuffer: Int?

        package init(authority: String? = nil) { self.authority = authority }
    }

    private let descriptor: Int32
    private let context: OpaquePointer
    private let ssl: OpaquePointer
    private var buffered: [UInt8] = []

    package init(port: Int, _ options: Options) throws {
        signal(SIGPIPE, SIG_IGN)
        guard let context = SSL_CTX_new(TLS_client_method()), let ssl = Self.configured(context, options) else {
            throw Failure(description: "no TLS: \(Self.reason)")
        }
        self.context = context
        self.ssl = ssl
        descriptor = Self.connected(port, receiveBuffer: options.receiveBuffer)
        SSL_set_fd(ssl, descriptor)
        SSL_set_connect_state(ssl)
        guard descriptor >= 0 else { throw Failure(description: "connect: \(String(cString: strerror(errno)))") }
        ERR_clear_error()
        guard SSL_do_handshake(ssl) == 1 else {
            let verdict = SSL_get_verify_result(ssl)
            let why = verdict == X509_V_OK ? Self.reason : String(cString: X509_verify_cert_error_string(verdict))
            throw Failure(description: "no handshake: \(why)")
        }
    }

    deinit {
        SSL_free(ssl)
        SSL_CTX_free(context)
        if descriptor >= 0 { Glibc.close(descriptor) }
    }

    private static func configured(_ context: OpaquePointer, _ options: Options) -> OpaquePointer? {
        if let version = options.version {
            SSL_CTX_ctrl(context, SSL_CTRL_SET_MIN_PROTO_VERSION, Int(version.rawValue), nil)
            SSL_CTX_ctrl(context, SSL_CTRL_SET_MAX_PROTO_VERSION, Int(version.rawValue), nil)
            // OpenSSL itself refuses the old versions above that level.
            SSL_CTX_set_cipher_list(context, "ALL:@SECLEVEL=0")
        }
        if let authority = options.authority {
            SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nil)
            SSL_CTX_load_verify_locations(context, authority, nil)
        }
        if let pair = options.pair {
            guard SSL_CTX_use_certificate_chain_file(context, pair.certificate) == 1,
                SSL_CTX_use_PrivateKey_file(context, pair.key, SSL_FILETYPE_PEM) == 1
            else { return nil }
        }
        let protocols = options.protocols.flatMap { [UInt8($0.utf8.count)] + Array($0.utf8) }
        if !protocols.isEmpty { SSL_CTX_set_alpn_protos(context, protocols, UInt32(protocols.count)) }
        guard let ssl = SSL_new(context) else { return nil }
        if options.authority != nil { SSL_set1_host(ssl, options.host) }
        if var name = options.serverName.map({ Array($0.utf8CString) }) {
            // SSL_set_tlsext_host_name(3) is a macro.
            SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, Int(TLSEXT_NAMETYPE_host_name), &name)
        }
        return ssl
    }

    private static func connected(_ port: Int, receiveBuffer: Int?) -> Int32 {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        if var size = receiveBuffer.map(Int32.init) {
            setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout<Int32>.size))
        }
        var timeout = timeval(tv_sec: 10, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        let result = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        return result == 0 ? descriptor : -1
    }

    private static var reason: String {
        ERR_reason_error_string(ERR_peek_last_error()).map { String(cString: $0) } ?? "the connection ended"
    }

    // MARK: What was agreed

    package var version: String { String(cString: SSL_get_version(ssl)) }

    /// Of ALPN; nil when none was.
    package var agreedProtocol: String? {
        var start: UnsafePointer<UInt8>?
        var count: UInt32 = 0
        SSL_get0_alpn_selected(ssl, &start, &count)
        return start.map { String(decoding: UnsafeBufferPointer(start: $0, count: Int(count)), as: UTF8.self) }
    }

    /// The server's certificate in DER.
    package var certificate: [UInt8] {
        guard let certificate = SSL_get1_peer_certificate(ssl) else { return [] }
        defer { X509_free(certificate) }
        var bytes: UnsafeMutablePointer<UInt8>?
        let count = i2d_X509(certificate, &bytes)
        defer { CRYPTO_free(bytes, nil, 0) }
        return bytes.map { Array(UnsafeBufferPointer(start: $0, count: Int(count))) } ?? []
    }

    // MARK: Bytes

    package func send(_ text: String) { send(Array(text.utf8)) }

    package func send(_ bytes: [UInt8]) {
        if !bytes.isEmpty { SSL_write(ssl, bytes, Int32(bytes.count)) }
    }

    /// Ends our direction properly.
    package func finishSending() {
        SSL_shutdown(ssl)
        shutdown(descriptor, Int32(SHUT_WR))
    }

    package enum End: Equatable, Sendable {
        /// With the goodbye of TLS.
        case closed
        /// Without.
        case cut
        case late
    }

    /// How the server's direction ended, once it has.
    package private(set) var end: End?

    /// Up to `count` bytes; empty at the end of the stream.
    package func receiveSome(_ count: Int = 65536) -> [UInt8] {
        if !buffered.isEmpty {
            let bytes = Array(buffered.prefix(count))
            buffered.removeFirst(bytes.count)
            return bytes
        }
        var bytes = [UInt8](repeating: 0, count: count)
        ERR_clear_error()
        let received = SSL_read(ssl, &bytes, Int32(count))
        if received > 0 { return Array(bytes.prefix(Int(received))) }
        switch SSL_get_error(ssl, received) {
        case SSL_ERROR_ZERO_RETURN: end = .closed
        case SSL_ERROR_WANT_READ: end = .late
        default: end = .cut
        }
        return []
    }

    /// Exactly `count` bytes, fewer only at the end of the stream.
    package func receive(_ count: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        while bytes.count < count {
            let some = receiveSome(min(count - bytes.count, 65536))
            if some.isEmpty { break }
            bytes += some
        }
        return bytes
    }

    package func receiveAll() -> [UInt8] {
        var bytes: [UInt8] = []
        while case let some = receiveSome(), !some.isEmpty { bytes += some }
        return bytes
    }

    /// Status line and headers, with their empty line.
    package func receiveHead() -> String {
        var bytes: [UInt8] = []
        while bytes.suffix(4) != [13, 10, 13, 10], bytes.count < 65536 {
            let byte = receive(1)
            if byte.isEmpty { break }
            bytes += byte
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// A response with a `Content-Length`.
    package func receiveResponse() -> (head: String, body: String) {
        let head = receiveHead()
        let length = head.lowercased().split(separator: "\r\n").first { $0.hasPrefix("content-length: ") }
            .flatMap { Int($0.dropFirst("content-length: ".count)) }
        return (head, String(decoding: receive(length ?? 0), as: UTF8.self))
    }

    /// The opening handshake of a WebSocket; the answer's head.
    package func openWebSocket(_ target: String = "/ws") -> String {
        send(
            "GET \(target) HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
        return receiveHead()
    }

    /// One unmasked frame: its first byte and its payload. nil at the end of the stream.
    package func receiveFrame() -> (first: UInt8, payload: [UInt8])? {
        let head = receive(2)
        guard head.count == 2 else { return nil }
        var length = Int(head[1])
        if length == 126 { length = receive(2).reduce(0) { $0 << 8 | Int($1) } }
        if length == 127 { length = receive(8).reduce(0) { $0 << 8 | Int($1) } }
        return (head[0], receive(length))
    }

    /// A masked text frame.
    package func sendText(_ text: String) { sendFrame(0x81, Array(text.utf8)) }

    package func sendFrame(_ first: UInt8, _ payload: [UInt8]) {
        var frame = [first]
        switch payload.count {
        case ..<126: frame.append(0x80 | UInt8(payload.count))
        case ...0xFFFF: frame += [0x80 | 126, UInt8(payload.count >> 8), UInt8(payload.count & 0xFF)]
        default: frame += [0x80 | 127] + (0..<8).map { UInt8(truncatingIfNeeded: payload.count >> (56 - 8 * $0)) }
        }
        let key: [UInt8] = [0x37, 0xFA, 0x21, 0x3D]
        send(frame + key + payload.enumerated().map { $1 ^ key[$0 & 3] })
    }
}
