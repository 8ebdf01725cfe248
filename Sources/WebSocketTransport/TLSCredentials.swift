import Glibc
package import NIOCore
import NIOSSL
import Synchronization
import TLSClient

/// Why files can't be used for TLS: one sentence that names the file.
package struct TLSFailure: Error, Equatable, CustomStringConvertible, Sendable {
    package let description: String
}

/// What one side of TLS is made of: PEM files.
package struct TLSFiles: Sendable, Equatable {
    /// Its certificate, behind it those that lead to the authority; and its key, which is not encrypted.
    package var pair: (certificate: String, key: String)?
    /// Certificates of the authorities, one of which must have signed the other side's. A server that has none asks for no
    /// certificate; a client needs one.
    package var authorities: String?

    package init(pair: (certificate: String, key: String)? = nil, authorities: String? = nil) {
        self.pair = pair
        self.authorities = authorities
    }

    var all: [String] { [pair?.certificate, pair?.key, authorities].compactMap { $0 } }

    package static func == (a: TLSFiles, b: TLSFiles) -> Bool { a.all == b.all && a.authorities == b.authorities }
}

/// One side of TLS 1.2 or later (RFC 5246, RFC 8446), as its files said when they were last read.
///
/// A connection keeps what it was made with; what was reloaded holds for those made after it.
package final class TLSCredentials: Sendable {
    package enum Role: Sendable { case server, client }

    package enum Reload: Equatable, Sendable {
        /// The files are as they were, or are still being written.
        case unchanged
        case loaded
        /// What was read before stays in force.
        case failed(TLSFailure)
    }

    private struct State {
        var loaded: Loaded
        /// Of the files when they were last read, also in vain.
        var seen: [FileVersion?]
        /// Another one that was met once. Two files are not replaced in one instant.
        var met: [FileVersion?]?
    }

    private struct Loaded {
        let context: NIOSSLContext
        let notAfter: Int64?
    }

    package let files: TLSFiles
    private let role: Role
    private let state: Mutex<State>

    /// Reads the files; blocks on the disk.
    package init(_ files: TLSFiles, role: Role) throws(TLSFailure) {
        self.files = files
        self.role = role
        let seen = FileVersion.of(files.all)
        state = Mutex(State(loaded: try Self.load(files, role), seen: seen))
    }

    /// When the own certificate ends, in seconds since 1970; nil without one.
    package var notAfter: Int64? { state.withLock { $0.loaded.notAfter } }

    /// Reads the files again when they are others than before, and have been the same at two calls; blocks on the disk.
    ///
    /// - Parameter isForced: at once, whatever they are.
    package func reload(isForced: Bool = false) -> Reload {
        let seen = FileVersion.of(files.all)
        let isDue = state.withLock { state in
            let isStable = state.met == seen
            state.met = seen
            return isForced || (seen != state.seen && isStable)
        }
        guard isDue else { return .unchanged }
        do throws(TLSFailure) {
            let loaded = try Self.load(files, role)
            state.withLock { state in
                state.loaded = loaded
                state.seen = seen
            }
            return .loaded
        } catch {
            state.withLock { $0.seen = seen }
            return .failed(error)
        }
    }

    // MARK: Connections

    /// Puts TLS at the front of an accepted connection's pipeline; on its loop.
    package func secure(server channel: any Channel) throws {
        let context = state.withLock { $0.loaded.context }
        try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: context), position: .first)
    }

    /// Puts TLS at the front of a connection that is being made; on its loop.
    ///
    /// - Parameter name: whose certificate the server must have; an IP address, or nil: that of the peer's address.
    package func secure(client channel: any Channel, to name: String?) throws {
        let context = state.withLock { $0.loaded.context }
        let isAddress = name.map { IPAddress($0) != nil } ?? true
        let handler = try TLSClient.handler(context, to: isAddress ? nil : name)
        try channel.pipeline.syncOperations.addHandler(handler, position: .first)
    }

    // MARK: Files

    private static func load(_ files: TLSFiles, _ role: Role) throws(TLSFailure) -> Loaded {
        var chain: [NIOSSLCertificate] = []
        var key: NIOSSLPrivateKey?
        if let pair = files.pair {
            chain = try reading { () throws(TLSClientError) in try PEMFile.certificates(in: pair.certificate) }
            key = try reading { () throws(TLSClientError) in try PEMFile.privateKey(in: pair.key) }
        }
        var configuration: TLSConfiguration
        switch role {
        case .server:
            guard let key else { throw TLSFailure(description: "a TLS server needs a certificate and a key") }
            configuration = .makeServerConfiguration(
                certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(key))
        case .client:
            configuration = .makeClientConfiguration()
            configuration.certificateChain = chain.map { .certificate($0) }
            configuration.privateKey = key.map { .privateKey($0) }
        }
        configuration.minimumTLSVersion = .tlsv12
        // Of version 1.2 only what is forward secret and authenticated (RFC 9325 section 4.2).
        configuration.cipherSuites = "ECDHE+AESGCM:ECDHE+CHACHA20"
        configuration.applicationProtocols = ["http/1.1"]
        // Who closes need not wait for the other's word (RFC 8446 section 6.1).
        configuration.shutdownTimeout = .zero
        if let authorities = files.authorities {
            configuration.trustRoots = .certificates(
                try reading { () throws(TLSClientError) in try PEMFile.certificates(in: authorities) })
            if role == .server {
                configuration.certificateVerification = .noHostnameVerification
                configuration.sendCANameList = true
            }
        }
        do {
            return Loaded(
                context: try NIOSSLContext(configuration: configuration),
                notAfter: chain.first.map { Int64($0.notValidAfter) })
        } catch {
            guard let pair = files.pair else { throw TLSFailure(description: "TLS cannot be set up: \(error)") }
            throw TLSFailure(
                description: "the key in \(pair.key) is not that of the certificate in \(pair.certificate)")
        }
    }

    private static func reading<Value>(_ read: () throws(TLSClientError) -> Value) throws(TLSFailure) -> Value {
        do {
            return try read()
        } catch {
            throw TLSFailure(description: error.description)
        }
    }
}

/// What tells one content of a path from another without reading it; symbolic links are followed.
private struct FileVersion: Equatable {
    let device: UInt
    let inode: UInt
    let size: Int
    let seconds: Int
    let nanoseconds: Int

    /// nil for a path where nothing can be seen.
    static func of(_ paths: [String]) -> [FileVersion?] {
        paths.map { path in
            var status = stat()
            guard stat(path, &status) == 0 else { return nil }
            return FileVersion(
                device: UInt(status.st_dev), inode: UInt(status.st_ino), size: Int(status.st_size),
                seconds: status.st_mtim.tv_sec, nanoseconds: status.st_mtim.tv_nsec)
        }
    }
}
