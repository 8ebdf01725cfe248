import Glibc
package import NIOSSL

/// What files in PEM (RFC 7468) hold. Reading blocks on the disk.
package enum PEMFile {
    /// At least one.
    package static func certificates(in path: String) throws(TLSFailure) -> [NIOSSLCertificate] {
        try checkReadable(path)
        guard let certificates = try? NIOSSLCertificate.fromPEMFile(path) else {
            throw TLSFailure("\(path) holds no certificate in PEM")
        }
        return certificates
    }

    static func privateKey(in path: String) throws(TLSFailure) -> NIOSSLPrivateKey {
        try checkReadable(path)
        guard let key = try? NIOSSLPrivateKey(file: path, format: .pem) else {
            throw TLSFailure("\(path) holds no private key in PEM that is not encrypted")
        }
        return key
    }

    private static func checkReadable(_ path: String) throws(TLSFailure) {
        guard access(path, R_OK) == 0 else {
            throw TLSFailure("\(path) cannot be read: \(String(cString: strerror(errno)))")
        }
    }
}
