package import NIOSSL

/// What one side of TLS proves itself with, out of PEM files.
package struct OwnCertificate: Sendable {
    /// Of the certificate, with those behind it that lead to the authority.
    package let file: String
    private let keyFile: String
    /// When the first of them ends, in seconds since 1970.
    package let notAfter: Int64
    /// The DNS names that it is for.
    package let names: [String]
    package let chain: [NIOSSLCertificateSource]
    package let privateKey: NIOSSLPrivateKeySource

    /// - Parameter keyFile: of the key, which is not encrypted.
    package init(_ file: String, key keyFile: String) throws(TLSFailure) {
        (self.file, self.keyFile) = (file, keyFile)
        let certificates = try PEMFile.certificates(in: file)
        notAfter = certificates.map { Int64($0.notValidAfter) }.min() ?? .min
        names = certificates.first.map(Self.names) ?? []
        chain = certificates.map { .certificate($0) }
        privateKey = .privateKey(try PEMFile.privateKey(in: keyFile))
    }

    /// The dNSName entries among the alternative names (RFC 5280 section 4.2.1.6).
    private static func names(of certificate: NIOSSLCertificate) -> [String] {
        certificate._subjectAlternativeNames().compactMap { name in
            name.nameType == .dnsName ? String(decoding: name.contents, as: UTF8.self) : nil
        }
    }

    /// - Parameter own: what `configuration` shows.
    package static func context(
        _ configuration: TLSConfiguration, showing own: OwnCertificate?
    ) throws(TLSFailure) -> NIOSSLContext {
        do {
            return try NIOSSLContext(configuration: configuration)
        } catch {
            guard let own else { throw TLSFailure("TLS cannot be set up: \(error)") }
            throw TLSFailure("the key in \(own.keyFile) is not that of the certificate in \(own.file)")
        }
    }
}
