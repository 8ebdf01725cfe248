package import NIOCore
import NIOSSL

/// What a client of ours asks of TLS; as it stands, what the system trusts, and the name that is dialled.
package struct TLSClientOptions: Sendable, Hashable {
    /// A PEM file of the authorities that are trusted; nil trusts those of the system.
    package var authorities: String?
    /// PEM files of the client's own certificate, with the chain behind it, and of its key: both or none.
    package var certificate: String?
    package var key: String?
    /// What the server's certificate must name, and what the server is told in SNI (RFC 6066, section 3); nil is the host
    /// that is dialled.
    package var serverName: String?

    package init(
        authorities: String? = nil, certificate: String? = nil, key: String? = nil, serverName: String? = nil
    ) {
        (self.authorities, self.certificate, self.key) = (authorities, certificate, key)
        self.serverName = serverName
    }

    /// Reads the files, which blocks. What is read now holds for the connections that are secured with it.
    package func load() throws(TLSFailure) -> TLSClient {
        if let serverName, TLSClient.isAddress(serverName) {
            throw TLSFailure("the server name \(serverName) is an address: give the name in the certificate")
        }
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.minimumTLSVersion = .tlsv12
        // A peer that is gone does not answer, and whoever closes has a new connection to make.
        configuration.shutdownTimeout = .milliseconds(500)
        if let authorities {
            configuration.trustRoots = .certificates(try PEMFile.certificates(in: authorities))
        }
        let own: OwnCertificate?
        switch (certificate, key) {
        case (nil, nil): own = nil
        case (let certificate?, let key?): own = try OwnCertificate(certificate, key: key)
        case (.some, nil): throw TLSFailure("a client certificate needs its key")
        case (nil, .some): throw TLSFailure("the key of a client needs its certificate")
        }
        if let own {
            configuration.certificateChain = own.chain
            configuration.privateKey = own.privateKey
        }
        let context = try OwnCertificate.context(configuration, showing: own)
        return TLSClient(context: context, serverName: serverName, certificate: own)
    }
}

extension FollowedFiles where Value == TLSClient, Failure == TLSFailure {
    package convenience init(_ options: TLSClientOptions) throws(TLSFailure) {
        let paths = [options.authorities, options.certificate, options.key].compactMap(\.self)
        try self.init(paths) { () throws(TLSFailure) in try options.load() }
    }
}

/// TLS 1.2 or newer towards servers whose certificate is good for their name.
package struct TLSClient: Sendable {
    private let context: NIOSSLContext
    private let serverName: String?
    /// What it shows to servers that ask for one.
    package let certificate: OwnCertificate?

    fileprivate init(context: NIOSSLContext, serverName: String?, certificate: OwnCertificate?) {
        (self.context, self.serverName, self.certificate) = (context, serverName, certificate)
    }

    /// Puts TLS at the end of the pipeline. What is written before the handshake is done goes out behind it; what TLS has to
    /// complain of goes on through the pipeline as a ``TLSFailure``.
    ///
    /// - Parameter host: as it was dialled. Where it is an address, the certificate must name that of the peer.
    package func secure(_ channel: any Channel, host: String) throws {
        let name = serverName ?? host
        try channel.pipeline.syncOperations.addHandlers([handler(for: name), TLSFailureHandler(name: name)])
    }

    /// RFC 9525, section 6: where a name was dialled, the certificate has to have that name. NIOSSL looks no less closely at
    /// names, but would also take the address that the name led to, or a common name.
    private func handler(for name: String) throws -> NIOSSLClientHandler {
        guard !Self.isAddress(name) else { return try NIOSSLClientHandler(context: context, serverHostname: nil) }
        return try NIOSSLClientHandler._makeSSLClientHandler(context: context, serverHostname: name) {
            certificate, channel in
            channel.eventLoop.makeCompletedFuture {
                guard Self.names(certificate, name) else { throw NIOSSLExtraError.failedToValidateHostname }
            }
        }
    }

    private static func names(_ certificate: NIOSSLCertificate, _ host: String) -> Bool {
        let host = host.lowercased()
        let parent = host.drop { $0 != "." }
        return certificate._subjectAlternativeNames().contains { alternative in
            guard alternative.nameType == .dnsName else { return false }
            let name = String(decoding: alternative.contents, as: UTF8.self).lowercased()
            return name == host || (!parent.isEmpty && name == "*" + parent)
        }
    }

    /// With or without an IPv6 zone, which says nothing of whose address it is.
    fileprivate static func isAddress(_ host: String) -> Bool {
        (try? SocketAddress(ipAddress: String(host.prefix { $0 != "%" }), port: 0)) != nil
    }
}
