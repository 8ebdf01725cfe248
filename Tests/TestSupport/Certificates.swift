import Foundation

/// A certificate authority of one test and what it issued, made by the `openssl` program. Its files go with the test
/// process.
package final class Certificates: Sendable {
    /// Two PEM files; the key is not encrypted.
    package struct Pair: Sendable, Hashable {
        package let certificate: String
        package let key: String
    }

    private let directory: String
    /// The PEM file of the authority's own certificate: what its clients are to trust.
    package let authority: String

    /// - Parameter name: the authority's; two of the same name are still two, which do not know each other's certificates.
    package init(authority name: String = "Test CA") async throws {
        directory = try TemporaryDirectory.make("certificates")
        authority = "\(directory)/ca.pem"
        try Data().write(to: URL(fileURLWithPath: "\(directory)/index.txt"))
        let configuration = """
            [ca]
            default_ca = authority
            [authority]
            database = \(directory)/index.txt
            new_certs_dir = \(directory)
            certificate = \(authority)
            private_key = \(directory)/ca.key
            default_md = sha256
            policy = policy
            rand_serial = yes
            unique_subject = no
            copy_extensions = copy
            [policy]
            commonName = supplied

            """
        try Data(configuration.utf8).write(to: URL(fileURLWithPath: "\(directory)/ca.conf"))
        try await Self.openSSL(
            Self.newKey("\(directory)/ca.key") + [
                "-x509", "-out", authority, "-days", "3650", "-subj", "/CN=\(name)",
                "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
            ])
    }

    /// A certificate for a server or a client. Issued again under the same file name it replaces both files, each by
    /// renaming. Not to be called twice at the same time.
    ///
    /// - Parameters:
    ///   - file: the name of the files without `.pem` and `.key`.
    ///   - names: as openssl-x509v3_config(5) writes alternative names, `DNS:localhost` or `IP:127.0.0.1`.
    ///   - isExpired: it was valid in 2020.
    @discardableResult
    package func issue(
        _ file: String,
        names: [String] = ["DNS:localhost", "IP:127.0.0.1", "IP:::1"],
        isExpired: Bool = false
    ) async throws -> Pair {
        let path = "\(directory)/\(file)"
        try await Self.openSSL(
            Self.newKey("\(path).key.new") + [
                "-new", "-out", "\(path).csr", "-subj", "/CN=\(file)",
                "-addext", "subjectAltName=\(names.joined(separator: ","))",
                "-addext", "basicConstraints=critical,CA:FALSE",
            ])
        try await Self.openSSL([
            "ca", "-config", "\(directory)/ca.conf", "-batch", "-notext", "-in", "\(path).csr",
            "-out", "\(path).pem.new",
            "-startdate", "20200101000000Z", "-enddate", isExpired ? "20200102000000Z" : "20491231235959Z",
        ])
        for suffix in ["key", "pem"] where rename("\(path).\(suffix).new", "\(path).\(suffix)") != 0 {
            throw Failure(description: "cannot write \(path).\(suffix)")
        }
        return Pair(certificate: "\(path).pem", key: "\(path).key")
    }

    package struct Failure: Error, CustomStringConvertible {
        package let description: String
    }

    private static func newKey(_ path: String) -> [String] {
        ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", path]
    }

    private static func openSSL(_ arguments: [String]) async throws {
        let output = try await ChildProcess.run("openssl", arguments, environment: MartletProgram.base)
        guard output.exit == .status(0) else {
            throw Failure(description: "openssl \(arguments[0]) failed: \(output.errorText)")
        }
    }
}
