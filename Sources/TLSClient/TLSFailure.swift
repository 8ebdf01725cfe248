import Glibc
import NIOCore
import NIOSSL

/// What is wrong with TLS, or with the files for it, on our side or the other: one clause, without a capital or a full stop.
package struct TLSFailure: Error, Sendable, Hashable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) {
        self.description = description
    }
}

/// Puts what NIOSSL says of a server into words.
final class TLSFailureHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let name: String

    init(name: String) {
        self.name = name
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        switch error {
        case NIOSSLError.uncleanShutdown:
            // The end of the connection follows. Whether something was cut off, the protocol above knows by itself.
            break
        case is NIOSSLError, is BoringSSLError, is NIOSSLExtraError:
            let certificate = try? context.pipeline.syncOperations.nioSSL_peerCertificate()
            context.fireErrorCaught(TLSFailure(words(for: error, certificate, now: time(nil))))
        default:
            context.fireErrorCaught(error)
        }
    }

    private func words(for error: any Error, _ certificate: NIOSSLCertificate?, now: time_t) -> String {
        if let error = error as? NIOSSLExtraError, error == .failedToValidateHostname {
            return "the server's certificate does not name \(name)"
        }
        // NIOSSL keeps BoringSSL's codes to itself, but for their names.
        let text = String(describing: error)
        if text.contains("CERTIFICATE_VERIFY_FAILED") {
            if let certificate, certificate.notValidAfter < now { return "the server's certificate has expired" }
            if let certificate, certificate.notValidBefore > now { return "the server's certificate is not valid yet" }
            return "the server's certificate is of no authority that is trusted here"
        }
        return Self.table.first { text.contains($0.code) }?.words ?? "TLS failed: \(text)"
    }

    private static let table: [(code: String, words: String)] = [
        ("WRONG_VERSION_NUMBER", "the server does not speak TLS on this port"),
        ("UNSUPPORTED_PROTOCOL", "the server speaks no TLS 1.2 or newer"),
        ("ALERT_PROTOCOL_VERSION", "the server takes no TLS version of ours"),
        ("ALERT_CERTIFICATE_REQUIRED", "the server asks for a client certificate"),
        ("ALERT_HANDSHAKE_FAILURE", "the server refused the handshake; perhaps it asks for a client certificate"),
        ("ALERT_UNKNOWN_CA", "the server does not trust the authority of our certificate"),
        ("ALERT_CERTIFICATE_EXPIRED", "our certificate has expired"),
        ("ALERT_BAD_CERTIFICATE", "the server refused our certificate"),
        ("ALERT_CERTIFICATE", "the server refused our certificate"),
        ("ALERT_UNSUPPORTED_CERTIFICATE", "the server refused our certificate"),
        ("ALERT_DECRYPT_ERROR", "the server refused our certificate"),
        ("ALERT_UNRECOGNIZED_NAME", "the server does not know the name that was dialled"),
        ("EOF during handshake", "the server closed the connection during the TLS handshake"),
    ]
}
