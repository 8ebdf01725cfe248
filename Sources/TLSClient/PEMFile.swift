import Glibc
package import NIOSSL

/// What files in PEM (RFC 7468) hold. Reading blocks on the disk.
package enum PEMFile {
    /// What a distribution trusts is a quarter of that.
    private static let maximumBytes = 1 << 20

    /// At least one.
    package static func certificates(in path: String) throws(TLSClientError) -> [NIOSSLCertificate] {
        let bytes = try read(path)
        guard let certificates = try? NIOSSLCertificate.fromPEMBytes(bytes), !certificates.isEmpty else {
            throw TLSClientError("\(path) holds no certificate in PEM")
        }
        return certificates
    }

    package static func privateKey(in path: String) throws(TLSClientError) -> NIOSSLPrivateKey {
        let bytes = try read(path)
        do {
            // Without the empty passphrase it would ask the terminal for one.
            return try NIOSSLPrivateKey(bytes: bytes, format: .pem) { use in use([UInt8]()) }
        } catch {
            throw TLSClientError("\(path) holds no private key in PEM that is not encrypted")
        }
    }

    private static func read(_ path: String) throws(TLSClientError) -> [UInt8] {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw .system(path) }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16384)
        while bytes.count <= maximumBytes {
            let count = Glibc.read(descriptor, &chunk, chunk.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw .system(path) }
            guard count > 0 else { return bytes }
            bytes += chunk[..<count]
        }
        throw TLSClientError("\(path) is larger than any PEM file of certificates")
    }
}

extension TLSClientError {
    fileprivate static func system(_ path: String) -> TLSClientError {
        TLSClientError("\(path) cannot be read: \(String(cString: strerror(errno)))")
    }
}
