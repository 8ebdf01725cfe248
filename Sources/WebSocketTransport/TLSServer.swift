package import NIOCore
import NIOSSL
package import TLSClient

/// What a server speaks TLS with, and goes on to when its files change: a connection keeps what it was made with.
package typealias TLSCredentials = FollowedFiles<TLSServer, TLSFailure>

/// TLS 1.2 or later (RFC 5246, RFC 8446) towards clients.
package struct TLSServer: Sendable {
    package let certificate: OwnCertificate
    private let context: NIOSSLContext

    fileprivate init(_ certificate: OwnCertificate, clientAuthorities: String?) throws(TLSFailure) {
        self.certificate = certificate
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: certificate.chain, privateKey: certificate.privateKey)
        configuration.minimumTLSVersion = .tlsv12
        // Of version 1.2 only what is forward secret and authenticated (RFC 9325 section 4.2).
        configuration.cipherSuites = "ECDHE+AESGCM:ECDHE+CHACHA20"
        configuration.applicationProtocols = ["http/1.1"]
        // Who closes need not wait for the other's word (RFC 8446 section 6.1).
        configuration.shutdownTimeout = .zero
        if let clientAuthorities {
            configuration.trustRoots = .certificates(try PEMFile.certificates(in: clientAuthorities))
            configuration.certificateVerification = .noHostnameVerification
            configuration.sendCANameList = true
        }
        context = try OwnCertificate.context(configuration, showing: certificate)
    }

    /// Puts TLS at the front of an accepted connection's pipeline; on its loop.
    package func secure(_ channel: any Channel) throws {
        try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: context), position: .first)
    }
}

extension FollowedFiles where Value == TLSServer, Failure == TLSFailure {
    /// - Parameters:
    ///   - certificate: a PEM file of the certificate, with those behind it that lead to the authority.
    ///   - key: a PEM file of its key, which is not encrypted.
    ///   - clientAuthorities: a PEM file of the authorities, one of which must have signed a client's certificate; clients
    ///     are asked for none when `nil`.
    package convenience init(certificate: String, key: String, clientAuthorities: String? = nil) throws(TLSFailure) {
        try self.init([certificate, key, clientAuthorities].compactMap(\.self)) { () throws(TLSFailure) in
            try TLSServer(OwnCertificate(certificate, key: key), clientAuthorities: clientAuthorities)
        }
    }
}
