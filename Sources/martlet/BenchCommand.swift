import ArgumentParser
import Glibc
import LoadGenerator

struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Loads any ws:// endpoint, checks every message, and says what it cost.",
        discussion: """
            Start the nodes with MARTLET_AUTH=none and MARTLET_LIMIT_MESSAGES_PER_SECOND=0, or the limits are what you
            measure. Process numbers given with --pid must be on this machine.
            """,
        subcommands: [BenchFanOutCommand.self, BenchEchoCommand.self]
    )
}

struct BenchOptions: ParsableArguments {
    @Option(name: .customLong("url"), help: "An endpoint; give it again to spread the connections over several.")
    var urls = ["ws://127.0.0.1:8080/ws"]

    @Option(help: "Seconds to measure.")
    var seconds = 5.0

    @Option(help: "Seconds to run before that.")
    var warmUp = 1.0

    @Option(help: "Length of each message's text.")
    var bytes = 150

    @Option(name: .customLong("pid"), help: "A process whose CPU and memory count; give it again for several.")
    var pids: [Int32] = []

    @Flag(help: "Print one JSON object instead of a table.")
    var json = false

    func validate() throws {
        guard (0.1...3600).contains(seconds), (0...600).contains(warmUp) else {
            throw ValidationError("--seconds is 0.1 to 3600 and --warm-up 0 to 600.")
        }
    }

    func endpoints() throws(LoadError) -> [Endpoint] {
        var endpoints: [Endpoint] = []
        for url in urls { endpoints.append(try Endpoint(url)) }
        return endpoints
    }

    /// Runs a scenario, shows its progress on a terminal and prints its report.
    func report(_ scenario: ((String) -> Void) throws(LoadError) -> LoadReport) throws(Failure) {
        let isTerminal = isatty(STDERR_FILENO) == 1
        do {
            let report = try scenario { line in
                if isTerminal { Terminal.write("\r\u{1B}[K\(line)", to: STDERR_FILENO) }
            }
            if isTerminal { Terminal.write("\r\u{1B}[K", to: STDERR_FILENO) }
            Terminal.write((json ? report.json : report.table) + "\n", to: STDOUT_FILENO)
        } catch {
            if isTerminal { Terminal.write("\r\u{1B}[K", to: STDERR_FILENO) }
            throw Failure(.failed, error.description)
        }
    }
}

struct BenchFanOutCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fanout",
        abstract: "One room, one publisher, N receivers: the price of a delivery."
    )

    @OptionGroup var options: BenchOptions

    @Option(help: "Receivers in the room.")
    var members = 1000

    @Option(help: "Messages that may be on their way at once.")
    var inFlight = 1

    @Option(help: "Messages a second; 0 is as fast as --in-flight allows.")
    var rate = 0.0

    @Option(help: "Threads that read.")
    var threads = 2

    func run() throws {
        try options.report { progress throws(LoadError) in
            var scenario = FanOut(endpoints: try options.endpoints())
            scenario.members = members
            scenario.inFlight = inFlight
            scenario.rate = rate
            scenario.threads = threads
            scenario.bytes = options.bytes
            scenario.seconds = options.seconds
            scenario.warmUpSeconds = options.warmUp
            scenario.pids = options.pids
            return try scenario.run(progress: progress)
        }
    }
}

struct BenchEchoCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "echo",
        abstract: "Acknowledged round trips, one at a time a client: the latency of a publish."
    )

    @OptionGroup var options: BenchOptions

    @Option(help: "Clients, each in a room of its own.")
    var clients = 1

    func run() throws {
        try options.report { progress throws(LoadError) in
            var scenario = Echo(endpoints: try options.endpoints())
            scenario.clients = clients
            scenario.bytes = options.bytes
            scenario.seconds = options.seconds
            scenario.warmUpSeconds = options.warmUp
            scenario.pids = options.pids
            return try scenario.run(progress: progress)
        }
    }
}
