import Glibc
import TLSClient
import WebSocketTransport

/// The certificate of `martlet dev --tls`, of an authority of its own (`LocalAuthority`).
enum DevCertificates {
    struct Files: Sendable, Equatable {
        let authority: String
        let certificate: String
        let key: String

        fileprivate init(folder: String) {
            authority = folder + "/ca.pem"
            certificate = folder + "/localhost.pem"
            key = folder + "/localhost.key"
        }
    }

    /// What is more is refused by some (Apple's, of certificates that people have trusted themselves).
    private static let days = 820
    private static let renewsBefore: Int64 = 30 * 86400

    /// Those of the folder, made unless they are there and good for another month.
    /// - Returns: also whether they were made: the authority is then a new one.
    static func ready(in folder: String) throws(Failure) -> (files: Files, areNew: Bool) {
        let files = Files(folder: folder)
        if isGood(files) { return (files, false) }
        guard mkdir(folder, 0o700) == 0 || errno == EEXIST else {
            throw Failure(.failed, "\(folder) cannot be made: \(ChildProcess.reason(errno))")
        }
        let made: LocalAuthority.Issue
        do throws(TLSFailure) {
            made = try LocalAuthority.issue(days: days)
        } catch {
            throw Failure(.failed, error.description)
        }
        // With the last of them all are of one issue.
        unlink(files.authority)
        try write(made.key, to: files.key)
        try write(made.certificate, to: files.certificate)
        try write(made.authority, to: files.authority)
        return (files, true)
    }

    private static func isGood(_ files: Files) -> Bool {
        guard access(files.authority, R_OK) == 0,
            let credentials = try? TLSCredentials(certificate: files.certificate, key: files.key)
        else { return false }
        return credentials.value.certificates[0].notAfter - Int64(time(nil)) > renewsBefore
    }

    private static func write(_ bytes: [UInt8], to path: String) throws(Failure) {
        let new = path + ".new"
        let descriptor = open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw Failure(.failed, "\(new) cannot be written: \(ChildProcess.reason(errno))") }
        let count = Glibc.write(descriptor, bytes, bytes.count)
        let isWhole = close(descriptor) == 0 && count == bytes.count
        guard isWhole, rename(new, path) == 0 else {
            throw Failure(.failed, "\(path) cannot be written: \(ChildProcess.reason(errno))")
        }
    }
}
