import Foundation
import Glibc
import TestSupport

/// HAProxy or NGINX from the package of Debian, before the nodes of a cluster, with its file of docker/.
struct OutsideProxy: Sendable {
    enum Kind: String, CaseIterable, Sendable {
        case haproxy
        case nginx

        var file: String { Self.read("docker/\(rawValue)." + (self == .haproxy ? "cfg" : "conf")) }

        /// A file of the repository.
        static func read(_ path: String) -> String {
            let root = #filePath.split(separator: "/").dropLast(3).map { "/" + $0 }.joined()
            // The checkout may have been built under another path than it stands in now.
            let candidates = ["\(root)/\(path)", path]
            return candidates.lazy.compactMap { try? String(contentsOfFile: $0, encoding: .utf8) }.first ?? ""
        }
    }

    let kind: Kind
    let port: Int
    private let process: ChildProcess
    private let folder: String
    private let nodes: [(name: String, port: Int)]

    /// Ended whatever becomes of the body; it begins when a node answers through the proxy.
    static func with(
        _ kind: Kind, before cluster: Cluster, _ body: @Sendable (OutsideProxy) async throws -> Void
    ) async throws {
        let proxy = try await start(kind, before: cluster)
        do {
            _ = try await poll(within: .seconds(20), "\(kind) to pass a request on") {
                if let exit = proxy.process.output.current.exit { throw TimedOut("ended (\(exit)): \(proxy.written)") }
                return try await HTTPAnswer.of("GET", "/readyz", port: proxy.port).status == 200 ? true : nil
            }
            try await body(proxy)
        } catch {
            await proxy.process.end()
            throw TimedOut("\(error); \(kind) wrote:\n\(proxy.written)")
        }
        await proxy.process.end()
    }

    private static func start(_ kind: Kind, before cluster: Cluster) async throws -> OutsideProxy {
        let program = "/usr/sbin/\(kind.rawValue)"
        guard access(program, X_OK) == 0 else {
            throw TimedOut("there is no \(program): `make deps-test` installs it")
        }
        let port = try FreePort.next()
        let folder = try TemporaryDirectory.make(kind.rawValue)
        let addresses = cluster.nodes.map { "127.0.0.1:\($0.port)" }
        var arguments: [String]
        var environment = ["PATH": "/usr/sbin:/usr/bin"]
        switch kind {
        case .haproxy:
            let path = folder + "/haproxy.cfg"
            try kind.file.write(toFile: path, atomically: false, encoding: .utf8)
            arguments = ["-db", "-f", path]
            environment["LISTEN"] = "127.0.0.1:\(port)"
            for (letter, address) in zip("ABC", addresses) { environment["NODE_\(letter)"] = address }
            // Only root may become another user.
            if let user = getpwuid(getuid()), let group = getgrgid(getgid()), getuid() != 0 {
                environment["RUN_AS_USER"] = String(cString: user.pointee.pw_name)
                environment["RUN_AS_GROUP"] = String(cString: group.pointee.gr_name)
            }
        case .nginx:
            let path = folder + "/nginx.conf"
            var text = kind.file.replacing("listen 8080;", with: "listen 127.0.0.1:\(port);")
            for (letter, address) in zip("abc", addresses) {
                text = text.replacing("server node-\(letter):8081 ", with: "server \(address) ")
            }
            // Where anybody may write.
            let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map { "\($0)_temp_path \(folder)/\($0);" }.joined(separator: " ")
            text = text.replacing("/var/log/nginx", with: folder).replacing("http {\n", with: "http {\n\(temporary)\n")
            try text.write(toFile: path, atomically: false, encoding: .utf8)
            // One process, which dies with the test; a worker would outlive its master.
            let own = "daemon off; master_process off; pid \(folder)/pid;"
            arguments = ["-e", "stderr", "-p", folder, "-c", path, "-g", own]
        }
        let process = try await ChildProcess.spawn(
            program, arguments, name: kind.rawValue, environment: environment)
        return OutsideProxy(
            kind: kind, port: port, process: process, folder: folder,
            nodes: cluster.nodes.map { ($0.name, $0.port) })
    }

    /// All that it has logged and said.
    var written: String {
        let output = process.output.current
        let files = ["access.log", "error.log"].map {
            (try? String(contentsOfFile: "\(folder)/\($0)", encoding: .utf8)) ?? ""
        }
        return ([output.text, output.errorText] + files).joined(separator: "\n")
    }

    /// Its line on a request, which it writes when that has ended.
    func logged(_ text: String) async throws -> String {
        try await poll(within: .seconds(10), every: .milliseconds(5), "\(kind) to log \(text)") {
            written.split(separator: "\n").first { $0.contains(text) }.map(String.init)
        }
    }

    /// Which node a request of this path was answered by, the last where it was tried at several.
    func server(of path: String) async throws -> String {
        let line = try await logged(path)
        let found = nodes.compactMap { node -> (name: String, at: String.Index)? in
            let mark = kind == .haproxy ? "nodes/\(node.name) " : "127.0.0.1:\(node.port)"
            return line.ranges(of: mark).last.map { (node.name, $0.lowerBound) }
        }
        guard let last = found.max(by: { $0.at < $1.at }) else { throw TimedOut("no node stands in: \(line)") }
        return last.name
    }

    /// Which node a request is passed on to.
    func server(_ query: String = "", headers: [(String, String)] = []) async throws -> String {
        let path = "/where-\(UInt64.random(in: 0...UInt64.max))"
        _ = try await HTTPAnswer.of("GET", path + query, port: port, headers: headers)
        return try await server(of: path)
    }
}
