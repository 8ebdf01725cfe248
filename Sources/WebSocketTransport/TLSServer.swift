package import NIOCore
import NIOSSL
package import TLSClient

/// What a server speaks TLS with, and goes on to when its files change: a connection keeps what it was made with.
package typealias TLSCredentials = FollowedFiles<TLSServer, TLSFailure>

/// TLS 1.2 or later (RFC 5246, RFC 8446) towards clients; which of its certificates one is shown depends on the name that it
/// asks for (`CertificateChoice`).
package struct TLSServer: Sendable {
    /// At least one.
    package let certificates: [OwnCertificate]
    private let context: NIOSSLContext

    fileprivate init(_ certificates: [OwnCertificate], clientAuthorities: String?) throws(TLSFailure) {
        self.certificates = certificates
        guard let first = certificates.first else { throw TLSFailure("there is no certificate") }
        var authorities: [NIOSSLCertificate]?
        if let clientAuthorities { authorities = try PEMFile.certificates(in: clientAuthorities) }
        // Of the others it is shown here that each is that of its key.
        for other in certificates.dropFirst() {
            _ = try OwnCertificate.context(Self.configuration(other, authorities), showing: other)
        }
        var configuration = Self.configuration(first, authorities)
        if certificates.count > 1 {
            let choice = CertificateChoice(certificates.map(\.names))
            let shown = certificates.map { certificate in
                var shown = NIOSSLContextConfigurationOverride()
                (shown.certificateChain, shown.privateKey) = (certificate.chain, certificate.privateKey)
                return shown
            }
            configuration.sslContextCallback = { hello, promise in
                promise.succeed(shown[choice.index(for: hello.serverHostname)])
            }
        }
        context = try OwnCertificate.context(configuration, showing: first)
    }

    private static func configuration(
        _ certificate: OwnCertificate, _ clientAuthorities: [NIOSSLCertificate]?
    ) -> TLSConfiguration {
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: certificate.chain, privateKey: certificate.privateKey)
        configuration.minimumTLSVersion = .tlsv12
        // Of version 1.2 only what is forward secret and authenticated (RFC 9325 section 4.2).
        configuration.cipherSuites = "ECDHE+AESGCM:ECDHE+CHACHA20"
        configuration.applicationProtocols = ["http/1.1"]
        // Who closes need not wait for the other's word (RFC 8446 section 6.1).
        configuration.shutdownTimeout = .zero
        if let clientAuthorities {
            configuration.trustRoots = .certificates(clientAuthorities)
            configuration.certificateVerification = .noHostnameVerification
            configuration.sendCANameList = true
        }
        return configuration
    }

    /// Puts TLS at the front of an accepted connection's pipeline; on its loop.
    package func secure(_ channel: any Channel) throws {
        try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: context), position: .first)
    }
}

extension FollowedFiles where Value == TLSServer, Failure == TLSFailure {
    /// - Parameters:
    ///   - certificates: PEM files, each of a certificate, with those behind it that lead to the authority, and of its key,
    ///     which is not encrypted; the first for whoever asks for no name that one of them has.
    ///   - clientAuthorities: a PEM file of the authorities, one of which must have signed a client's certificate; clients
    ///     are asked for none when `nil`.
    package convenience init(
        _ certificates: [(certificate: String, key: String)], clientAuthorities: String? = nil
    ) throws(TLSFailure) {
        let paths = certificates.flatMap { [$0.certificate, $0.key] } + [clientAuthorities].compactMap(\.self)
        try self.init(paths) { () throws(TLSFailure) in
            var own: [OwnCertificate] = []
            for files in certificates { own.append(try OwnCertificate(files.certificate, key: files.key)) }
            return try TLSServer(own, clientAuthorities: clientAuthorities)
        }
    }

    package convenience init(certificate: String, key: String, clientAuthorities: String? = nil) throws(TLSFailure) {
        try self.init([(certificate, key)], clientAuthorities: clientAuthorities)
    }
}
