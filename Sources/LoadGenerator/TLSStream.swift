import COpenSSL
import Glibc

/// How a run knows the server of a `wss://` endpoint.
package struct TLSTrust: Sendable {
    /// A file of PEM certificates to trust instead of the system's.
    package var authorities: String?
    /// Whether the certificate must be good, and for this host.
    package var verifies = true

    package init() {}
}

/// What all connections of a run have of TLS: version 1.2 or later, and whom they trust. No connection resumes the session of
/// another: each pays for a whole handshake.
///
/// `@unchecked Sendable`: an `SSL_CTX` may be used by several threads as long as it is not changed (openssl-threads(7)), and
/// it is changed in `init` alone.
final class TLSContext: @unchecked Sendable {
    fileprivate let context: OpaquePointer
    fileprivate let verifies: Bool

    init(_ trust: TLSTrust) throws(LoadError) {
        guard let context = SSL_CTX_new(TLS_client_method()) else { throw .tls("no TLS") }
        self.context = context
        verifies = trust.verifies
        SSL_CTX_ctrl(context, SSL_CTRL_SET_MIN_PROTO_VERSION, Int(TLS1_2_VERSION), nil)
        // A record is read with one call, not with one for its head and one for the rest.
        SSL_CTX_ctrl(context, SSL_CTRL_SET_READ_AHEAD, 1, nil)
        guard trust.verifies else { return }
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nil)
        if let file = trust.authorities {
            guard SSL_CTX_load_verify_locations(context, file, nil) == 1 else {
                throw LoadError("\(file) is no file of PEM certificates that can be read")
            }
        } else {
            SSL_CTX_set_default_verify_paths(context)
        }
    }

    deinit {
        SSL_CTX_free(context)
    }
}

/// TLS on one connected socket, which it neither owns nor waits for. Confined to the thread of its connection.
final class TLSStream {
    enum Read {
        case bytes(Int)
        /// The socket has no more now.
        case nothing
        case ended
    }

    private let ssl: OpaquePointer

    init(_ context: TLSContext, to host: String, on socket: Int32) throws(LoadError) {
        guard let ssl = SSL_new(context.context) else { throw .tls("no TLS") }
        self.ssl = ssl
        SSL_set_fd(ssl, socket)
        SSL_set_connect_state(ssl)
        // A certificate names addresses apart from hosts, and server_name (RFC 6066 section 3) is for hosts alone.
        let isAddress = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1
        ERR_clear_error()
        guard !isAddress else { return }
        if context.verifies { SSL_set1_host(ssl, host) }
        host.withCString { name in
            _ = SSL_ctrl(
                ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, Int(TLSEXT_NAMETYPE_host_name),
                UnsafeMutableRawPointer(mutating: name)
            )
        }
    }

    deinit {
        SSL_free(ssl)
    }

    /// Goes on with the handshake; whether it has ended.
    func handshake() throws(LoadError) -> Bool {
        ERR_clear_error()
        let result = SSL_do_handshake(ssl)
        if result == 1 { return true }
        if isWaiting(result) { return false }
        let verdict = SSL_get_verify_result(ssl)
        guard verdict == X509_V_OK else {
            let reason = String(cString: X509_verify_cert_error_string(verdict))
            throw LoadError("the server's certificate is not trusted: \(reason) (--cacert FILE, or --insecure)")
        }
        throw .tls("no TLS handshake")
    }

    func read(into buffer: UnsafeMutableRawBufferPointer) throws(LoadError) -> Read {
        ERR_clear_error()
        let result = SSL_read(ssl, buffer.baseAddress, Int32(clamping: buffer.count))
        if result > 0 { return .bytes(Int(result)) }
        if isWaiting(result) { return .nothing }
        // Many servers end TCP without a word of TLS.
        let isCut = Int32(ERR_peek_error() & 0x7FFFFF) == SSL_R_UNEXPECTED_EOF_WHILE_READING
        if SSL_get_error(ssl, result) == SSL_ERROR_ZERO_RETURN || isCut { return .ended }
        throw .tls("the TLS connection broke")
    }

    /// - Returns: whether it was taken; false: it is to be offered again, unchanged, when the socket takes more.
    func write(_ bytes: UnsafeRawBufferPointer) throws(LoadError) -> Bool {
        ERR_clear_error()
        let result = SSL_write(ssl, bytes.baseAddress, Int32(clamping: bytes.count))
        if result > 0 { return true }
        if isWaiting(result) { return false }
        throw .tls("the TLS connection broke")
    }

    /// What `poll(2)` is to wait for before a write is offered again.
    var awaited: Int16 { Int16(SSL_want(ssl) == SSL_READING ? POLLIN : POLLOUT) }

    private func isWaiting(_ result: Int32) -> Bool {
        let error = SSL_get_error(ssl, result)
        return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE
    }
}

extension LoadError {
    /// With what OpenSSL says of its last failure, or the system.
    fileprivate static func tls(_ what: String) -> LoadError {
        guard let reason = ERR_reason_error_string(ERR_peek_last_error()) else { return .system(what) }
        return LoadError("\(what): \(String(cString: reason))")
    }
}
