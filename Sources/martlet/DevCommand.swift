import ArgumentParser
import Glibc
import NIOCore
import TokenAuth

struct DevCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dev",
        abstract: "Runs a whole cluster on this machine: Redis, nodes and a router, until Ctrl-C.",
        discussion: """
            Redis is a child of its own on a socket under .martlet/, where its data stays; --redis takes one that stands. \
            The router listens on --port, the nodes on the ports after it. Unless --auth or MARTLET_AUTH says otherwise, \
            clients are believed whoever they say they are: for development alone. Settings come from the environment, \
            where it says nothing from the file .env of the directory, and then from the configuration file. \
            `martlet admin` in the same directory finds the cluster by itself.
            """
    )

    @Option(help: "How many nodes, 1 to \(DevPlan.maximumNodes).")
    var nodes = 3

    @Option(help: "The router's port; the nodes take the ones after it. (default: 8080)")
    var port: String?

    @Option(help: "The address the router listens on. (default: 127.0.0.1)")
    var host: String?

    @Flag(
        help:
            "Serve https:// and wss:// with a certificate for this machine's own names, which an authority of this folder signs."
    )
    var tls = false

    @OptionGroup var redis: RedisOptions

    @Option(help: "none believes the name a client gives, token asks for a signed token. (default: none)")
    var auth: String?

    @Option(help: ArgumentHelp("How long an end leaves clients to move. (default: 3)", valueName: "seconds"))
    var drain: String?

    @Option(
        name: .customLong("redis-timeout"),
        help: ArgumentHelp("How long to wait for Redis at the start. (default: 30)", valueName: "seconds"))
    var redisTimeout: String?

    @Option(name: .customLong("log-level"), help: "The least severe log lines that are shown.")
    var logLevel: String?

    @Flag(help: "End the cluster that runs in this directory, and wait for its end.")
    var down = false

    func run() throws {
        let folder = DevFolder.here()
        if down {
            Terminal.write(try folder.end(within: 60) + "\n", to: STDOUT_FILENO)
            return
        }
        let (settings, environment) = try readSettings()
        let standing = settings.given["MARTLET_REDIS_URL"] == nil ? nil : settings.redisURL
        if standing == nil, ChildProcess.find("redis-server", path: environment["PATH"] ?? "/usr/bin:/bin") == nil {
            throw Failure(
                .failed,
                "redis-server is not installed: `make deps` installs it, or give one that runs with --redis URL")
        }
        let socketFolder = try Self.socketFolder(folder)
        // Empty by then, unless something of another's stands in it.
        defer { if socketFolder.hasPrefix(Self.standInPrefix) { rmdir(socketFolder) } }
        let certificates = try tls ? Self.certificates(folder, settings) : nil
        // Before anything starts: a sentence here, not in the log of a child that ends.
        if certificates == nil { _ = try settings.serverTLS() }
        let plan = try DevPlan(
            settings: settings, nodes: nodes, standingRedis: standing, certificates: certificates?.files,
            folder: folder.path, socketFolder: socketFolder,
            program: ChildProcess.ownProgram(), randomSecret: Self.randomSecret())
        try plan.refuse(settings.file)
        let token = try plan.authentication == .token ? Self.token(of: DevBanner.user, settings) : nil
        let lock = try folder.occupy()
        try Self.checkPorts(plan)
        if let socket = plan.ownSocket { try Self.awaitEndOfEarlier(socket: socket) }
        folder.publish(plan, authority: certificates?.files.authority, lock: lock)

        let output = DevOutput(
            names: plan.children.map(\.name), colour: Terminal.wantsColour(STDOUT_FILENO, environment: environment))
        let cluster = try DevCluster(plan: plan, environment: environment, output: output)
        output.say("starting \(plan.children.map(\.name).joined(separator: ", "))")
        let patience: TimeAmount = settings.given["MARTLET_DRAIN_SECONDS"] == nil ? .seconds(3) : settings.drain
        cluster.run(patience: patience.nanoseconds / 1_000_000 + 5000) { pids in
            let program = CommandLine.arguments.first ?? "martlet"
            output.show(
                DevBanner.text(
                    plan, pids: pids, program: program, token: token,
                    authority: certificates.map { (".martlet/tls/ca.pem", $0.areNew) }))
        }
        output.say("ended")
        output.flush()
    }

    /// - Returns: also the environment of the children, who read from it what has no place in the plan.
    private func readSettings() throws(Failure) -> (Settings, environment: [String: String]) {
        var environment = try DotEnv.adding(to: Settings.processEnvironment())
        var flags = redis.flags
        flags.merge(
            [
                "MARTLET_PORT": port, "MARTLET_HOST": host, "MARTLET_AUTH": auth, "MARTLET_DRAIN_SECONDS": drain,
                "MARTLET_REDIS_TIMEOUT_SECONDS": redisTimeout, "MARTLET_LOG_LEVEL": logLevel,
            ]
        ) { $1 }
        let settings = try Settings(environment: environment, flags: flags)
        if let config = redis.config { environment["MARTLET_CONFIG"] = config }
        if let drain { environment["MARTLET_DRAIN_SECONDS"] = drain }
        if let redisTimeout { environment["MARTLET_REDIS_TIMEOUT_SECONDS"] = redisTimeout }
        return (settings, environment)
    }

    /// One that a person can try the cluster with for a day; for what runs longer there is `martlet token mint`.
    /// Where the keys are public ones alone, the issuer's have to do.
    private static func token(of user: String, _ settings: Settings) throws(Failure) -> String {
        _ = try settings.tokenChecks()
        guard let key = try settings.tokenKeys().first(where: \.canSign) else { return "…" }
        let now = Int64(time(nil))
        do throws(TokenKeyError) {
            return try TokenMinter(key: key).mint(
                subject: user, issuedAt: now, expiresAt: now + 24 * 3600, issuer: settings.tokens.issuer,
                audience: settings.tokens.audience)
        } catch {
            throw Failure(.failed, "no token can be made: the key \(error)")
        }
    }

    /// Of the folder, which is made when it is not there.
    private static func certificates(
        _ folder: DevFolder, _ settings: Settings
    ) throws(Failure) -> (files: DevCertificates.Files, areNew: Bool) {
        guard settings.tls.certificate == nil, settings.tls.key == nil else {
            throw Failure(.usage, "--tls makes a certificate, but MARTLET_TLS_CERT names one: leave one of them out")
        }
        guard mkdir(folder.path, 0o700) == 0 || errno == EEXIST else {
            throw Failure(.failed, "\(folder.path) cannot be made: \(ChildProcess.reason(errno))")
        }
        return try DevCertificates.ready(in: folder.path + "/tls")
    }

    /// After a SIGKILL of dev its redis-server takes a moment to end, and would take the new one's socket with it.
    private static func awaitEndOfEarlier(socket: String) throws(Failure) {
        for _ in 0..<200 {
            guard let descriptor = Sockets.connect(path: socket) else { return }
            close(descriptor)
            usleep(50_000)
        }
        throw Failure(.failed, "a redis-server from an earlier run still listens on \(socket): end it first")
    }

    static func checkPorts(_ plan: DevPlan) throws(Failure) {
        for (host, port, owner) in plan.ports {
            switch Sockets.tryListening(host: host, port: port) {
            case .free: continue
            case .inUse:
                throw Failure(
                    .failed, "port \(port), which \(owner) would take, is in use: choose another first port with --port"
                )
            case .refused(let reason):
                throw Failure(
                    .failed,
                    "\(owner) cannot listen on \(host) port \(port) (\(reason)): choose others with --host and --port")
            }
        }
    }

    /// A socket's path is at most 107 bytes and has to fit into a URL as it is. Where the checkout's does not, a folder
    /// under /tmp stands in for it, always the same for one checkout, which only this user can enter.
    private static func socketFolder(_ folder: DevFolder) throws(Failure) -> String {
        let own = folder.path + "/redis"
        let plain = own.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && !"?#%@\"".utf8.contains($0) }
        if plain, own.utf8.count < 90 { return own }
        // FNV-1a, 64 bits.
        let hash = own.utf8.reduce(UInt64(0xcbf2_9ce4_8422_2325)) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
        let path = standInPrefix + "\(geteuid())-" + String(hash, radix: 36)
        var status = stat()
        guard mkdir(path, 0o700) == 0 || errno == EEXIST, lstat(path, &status) == 0,
            status.st_mode == S_IFDIR | 0o700, status.st_uid == geteuid()
        else {
            throw Failure(.failed, "\(path), which the socket of Redis needs, is not a folder of this user alone")
        }
        return path
    }

    private static let standInPrefix = "/tmp/martlet-dev-"

    private static func randomSecret() -> String {
        var generator = SystemRandomNumberGenerator()
        return (0..<4).map { _ in
            let digits = String(generator.next(), radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }.joined()
    }
}

/// What a person reads once all is ready.
enum DevBanner {
    /// Who chats from the terminal.
    static let user = "alice"

    /// - Parameters:
    ///   - token: of `user`, where the nodes ask for one.
    ///   - authority: who signed the certificate of --tls: its file.
    static func text(
        _ plan: DevPlan, pids: [String: pid_t], program: String, token: String?,
        authority: (file: String, isNew: Bool)? = nil
    ) -> String {
        let victim = "node-\(plan.nodeCount > 1 ? "b" : "a")"
        let steps = [
            ("\(program) chat general" + (token == nil ? " --user \(user)" : ""), "chat from the terminal"),
            ("\(program) admin nodes --watch", "the nodes and what they carry"),
            ("\(program) admin presence general", "who is in the room, and on which node"),
            ("\(program) admin tail general", "the room's messages as they come"),
            ("kill -9 \(pids[victim] ?? 0)", "\(victim) dies; chat goes on, and it starts again"),
        ]
        let width = steps.map(\.0.count).max() ?? 0
        var lines = [
            "",
            "  Martlet is ready: \(plan.nodeCount) node\(plan.nodeCount == 1 ? "" : "s") behind one router.",
            "",
            "  Open  \(plan.page)  in two windows.",
            "",
        ]
        if let authority {
            let new = authority.isNew ? "; it is a new one" : ""
            lines += [
                "  The authority in \(authority.file) signed the certificate, and can vouch for this machine alone\(new). Trust it:",
                "    curl --cacert \(authority.file) \(plan.page)readyz",
                "    in a browser: import the file among the authorities; for the whole system:",
                "    sudo cp \(authority.file) /usr/local/share/ca-certificates/martlet.crt && sudo update-ca-certificates",
                "",
            ]
        }
        if plan.authentication == .none {
            lines += ["  WARNING: MARTLET_AUTH=none. Anyone is whoever they say they are: for development alone.", ""]
        }
        lines.append("  Try next, in another terminal here:")
        if let token { lines.append("    export MARTLET_CHAT_TOKEN=\(token)") }
        for (command, meaning) in steps {
            lines.append("    \(command)\(String(repeating: " ", count: width - command.count))  # \(meaning)")
        }
        lines += ["", "  Redis is at \(plan.shownRedisURL). Ctrl-C ends it all.", "", ""]
        return lines.joined(separator: "\n")
    }
}
