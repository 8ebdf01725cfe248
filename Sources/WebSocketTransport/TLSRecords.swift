import Glibc
package import NIOCore
import NIOSSL
import NIOTLS

/// What the connections above NIOSSL need to know of it.
package enum TLSRecords {
    /// With what TLS adds, a record of so much fits into the buffer of one record that NIOSSL makes for each connection. It
    /// would make that larger for more and keep it so for the connection's life (swift-nio-ssl 2.37).
    private static let payload = 16 * 1024 - 256

    /// Encrypts `bytes` and gives them to the socket now. The promise is completed when all are written; failing closes the
    /// channel within the call.
    package static func writeAndFlush(
        _ bytes: ByteBuffer, to context: ChannelHandlerContext, promise: EventLoopPromise<Void>?
    ) {
        var rest = bytes
        while rest.readableBytes > payload, let record = rest.readSlice(length: payload) {
            context.writeAndFlush(NIOAny(record), promise: nil)
        }
        context.writeAndFlush(NIOAny(rest), promise: promise)
    }

    /// Whether a pipeline's event says that the handshake is over.
    package static func isHandshakeCompleted(_ event: Any) -> Bool {
        if case .handshakeCompleted? = event as? TLSUserEvent { true } else { false }
    }

    /// Why a client's handshake failed; nil for an error that is not of TLS.
    package static func reason(of error: any Error, on context: ChannelHandlerContext) -> String? {
        let reason = reason(of: error)
        guard reason == "certificate verify failed",
            let certificate = try? context.pipeline.syncOperations.nioSSL_peerCertificate()
        else { return reason }
        let now = time(nil)
        if certificate.notValidAfter < now { return "the certificate has expired" }
        if certificate.notValidBefore > now { return "the certificate is not valid yet" }
        return "the certificate is of no authority that is trusted here"
    }

    /// In words of TLS.
    private static func reason(of error: any Error) -> String? {
        switch error {
        case NIOSSLError.handshakeFailed(let cause), NIOSSLError.shutdownFailed(let cause): reason(ofTLS: cause)
        case let cause as BoringSSLError: reason(ofTLS: cause)
        case NIOSSLError.uncleanShutdown: "the connection was cut"
        case is NIOSSLError, is NIOSSLExtraError: "\(error)"
        default: nil
        }
    }

    private static func reason(ofTLS error: BoringSSLError) -> String {
        guard case .sslError(let stack) = error, let first = stack.first else { return "the connection was cut" }
        if first == .eofDuringHandshake { return "the peer closed before the handshake was over" }
        // Error: CODE error:HEX:SSL routines:OPENSSL_internal:THE_REASON at FILE:LINE
        let text = first.description
        guard let word = text.split(separator: ":").first(where: { $0.contains(" at ") })?.split(separator: " ").first
        else { return text }
        switch word {
        case "HTTP_REQUEST", "HTTPS_PROXY_REQUEST": return "the client speaks plain HTTP"
        case "WRONG_VERSION_NUMBER": return "the peer does not speak TLS"
        default: return word.lowercased().split(separator: "_").joined(separator: " ")
        }
    }
}
