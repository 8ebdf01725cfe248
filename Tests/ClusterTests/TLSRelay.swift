import Foundation
import TestSupport

/// Ends TLS before a plain server.
struct TLSRelay {
    let process: ChildProcess
    let port: Int

    static func start(_ pair: Certificates.Pair, to server: Int) async throws -> TLSRelay {
        let tests = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        let process = try await ChildProcess.spawn(
            tests.appending(path: "Peers/tls-relay.py").path, [pair.certificate, pair.key, "\(server)"],
            name: "tls-relay",
            environment: ["PATH": ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"])
        let port = try await process.output.wait(within: .seconds(20), "the relay's port") {
            Int($0.text.trimmingCharacters(in: .newlines))
        }
        return TLSRelay(process: process, port: port)
    }
}
