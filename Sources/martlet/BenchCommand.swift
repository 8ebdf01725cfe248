import ArgumentParser
import Glibc
import LoadGenerator

struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Loads any ws:// or wss:// endpoint, checks every message, and says what it cost.",
        discussion: """
            Start the nodes with MARTLET_AUTH=none, MARTLET_LIMIT_MESSAGES_PER_SECOND=0 and
            MARTLET_LIMIT_UPGRADES_PER_SECOND=0, or the limits are what you measure. Process numbers given with --pid must
            be on this machine. With --rate latency counts from the moment at which an operation
            was due, so that a server that stands still is not spared what it held up; without a rate it is service time.
            """,
        subcommands: [
            BenchFanOutCommand.self, BenchRoomsCommand.self, BenchEchoCommand.self, BenchIdleCommand.self,
            BenchConnectCommand.self, BenchPresenceCommand.self, BenchPublishCommand.self, BenchSoakCommand.self,
        ]
    )
}

struct BenchOptions: ParsableArguments {
    @Option(name: .customLong("url"), help: "An endpoint; give it again to spread the connections over several.")
    var urls = ["ws://127.0.0.1:8080/ws"]

    @Option(
        name: .customLong("source"),
        help: """
            An address to connect from; give it again to take turns. One pair of addresses carries about 28,000
            connections. A target in 127.0.0.0/8 is connected to from 127.0.0.1 to 127.0.0.16.
            """)
    var sources: [String] = []

    @Option(help: "A file of PEM certificates to trust for wss:// instead of the system's.")
    var cacert: String?

    @Flag(help: "Take any certificate of a wss:// endpoint.")
    var insecure = false

    @Option(help: "Seconds to measure (default 5; idle 30, soak 3600).")
    var seconds: Double?

    @Option(help: "Seconds to run before that.")
    var warmUp = 1.0

    @Option(name: .customLong("pid"), help: "A process whose CPU and memory count; give it again for several.")
    var pids: [Int32] = []

    @Option(help: "Threads that receive, besides the one that publishes (default: one for two cores).")
    var threads: Int?

    @Flag(help: "Print one JSON object instead of a table.")
    var json = false

    func validate() throws {
        guard (0.1...1_000_000).contains(seconds ?? 1), (0...600).contains(warmUp) else {
            throw ValidationError("--seconds is 0.1 to 1000000 and --warm-up 0 to 600.")
        }
        guard pids.allSatisfy({ $0 > 0 }) else { throw ValidationError("--pid is the number of a process.") }
        guard (1...64).contains(threads ?? 1) else { throw ValidationError("--threads is 1 to 64.") }
    }

    func load(seconds usual: Double = 5) throws(LoadError) -> LoadOptions {
        var endpoints: [Endpoint] = []
        for url in urls { endpoints.append(try Endpoint(url)) }
        var options = LoadOptions(endpoints: endpoints)
        options.sources = sources
        options.trust.authorities = cacert
        options.trust.verifies = !insecure
        options.seconds = seconds ?? usual
        options.warmUpSeconds = warmUp
        options.pids = pids
        options.threads = threads ?? max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)) / 2)
        return options
    }

    /// Runs a scenario, shows its progress on a terminal and prints its report.
    func report(_ scenario: (LoadListener) throws(LoadError) -> LoadReport) throws(Failure) {
        let isTerminal = isatty(STDERR_FILENO) == 1
        let clear = { if isTerminal { Terminal.write("\r\u{1B}[K", to: STDERR_FILENO) } }
        let listener = LoadListener(
            progress: { line in
                if isTerminal { Terminal.write("\r\u{1B}[K\(line)", to: STDERR_FILENO) }
            },
            interval: { line in
                clear()
                if !json { Terminal.write(line + "\n", to: STDOUT_FILENO) }
            })
        do {
            let report = try scenario(listener)
            clear()
            Terminal.write((json ? report.json : report.table) + "\n", to: STDOUT_FILENO)
        } catch {
            clear()
            throw Failure(.failed, Printable.text(error.description))
        }
    }
}

struct BenchMessageOptions: ParsableArguments {
    @Option(help: "Length of each message's text, 28 to 60000.")
    var bytes = 150

    @Option(help: "Messages of a publisher that may be on their way at once (default 1; with --rate 1024).")
    var inFlight: Int?

    @Option(
        help: "Messages a second of all publishers together; 0 is as fast as --in-flight allows (default 0; soak 1000)."
    )
    var rate: Double?

    func validate() throws {
        guard (28...60_000).contains(bytes) else { throw ValidationError("--bytes is 28 to 60000.") }
        guard (1...1024).contains(inFlight ?? 1) else { throw ValidationError("--in-flight is 1 to 1024.") }
        try validateRate(rate ?? 0)
    }

    func apply(to traffic: inout Traffic, usualRate: Double = 0) {
        traffic.bytes = bytes
        traffic.rate = rate ?? usualRate
        traffic.inFlight = inFlight ?? (traffic.rate > 0 ? 1024 : 1)
    }
}

private func validateRate(_ rate: Double) throws {
    guard rate == 0 || (0.001...10_000_000).contains(rate) else {
        throw ValidationError("--rate is 0, or 0.001 to 10000000.")
    }
}

private func validateCounts(_ counts: (flag: String, value: Int, least: Int)...) throws {
    for (flag, value, least) in counts where !(least...1_000_000).contains(value) {
        throw ValidationError("\(flag) is \(least) to 1000000.")
    }
}

struct BenchFanOutCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fanout",
        abstract: "One room, one publisher, N receivers: the price of a delivery."
    )

    @OptionGroup var options: BenchOptions
    @OptionGroup var messages: BenchMessageOptions

    @Option(help: "Receivers in the room.")
    var members = 1000

    func validate() throws {
        try validateCounts(("--members", members, 1))
    }

    func run() throws {
        try options.report { listener throws(LoadError) in
            var traffic = Traffic("fanout", .delivery, try options.load())
            traffic.receivers = members
            messages.apply(to: &traffic)
            return try traffic.run(listener)
        }
    }
}

struct BenchRoomsOptions: ParsableArguments {
    @Option(help: "Rooms.")
    var rooms = 200

    @Option(help: "Members of each room.")
    var members = 10

    @Option(help: "How many members of each room publish.")
    var publishers = 1

    func validate() throws {
        try validateCounts(("--rooms", rooms, 1), ("--members", members, 1), ("--publishers", publishers, 1))
        guard publishers <= members else { throw ValidationError("--publishers is at most --members.") }
    }

    func apply(to traffic: inout Traffic) {
        traffic.rooms = rooms
        traffic.publishers = publishers
        traffic.receivers = members - publishers
    }
}

struct BenchRoomsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rooms",
        abstract: "R rooms of M members, of whom some publish: the price of a delivery in many small rooms."
    )

    @OptionGroup var options: BenchOptions
    @OptionGroup var shape: BenchRoomsOptions
    @OptionGroup var messages: BenchMessageOptions

    func run() throws {
        try options.report { listener throws(LoadError) in
            var traffic = Traffic("rooms", .delivery, try options.load())
            shape.apply(to: &traffic)
            messages.apply(to: &traffic)
            return try traffic.run(listener)
        }
    }
}

struct BenchEchoCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "echo",
        abstract: "Acknowledged round trips, one at a time a client: the latency of a publish."
    )

    @OptionGroup var options: BenchOptions
    @OptionGroup var messages: BenchMessageOptions

    @Option(help: "Clients, each in a room of its own.")
    var clients = 1

    func validate() throws {
        try validateCounts(("--clients", clients, 1))
    }

    func run() throws {
        try options.report { listener throws(LoadError) in
            var traffic = Traffic("echo", .roundTrip, try options.load())
            traffic.rooms = clients
            messages.apply(to: &traffic)
            return try traffic.run(listener)
        }
    }
}

struct BenchIdleCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "idle",
        abstract: "N connections that only answer pings: memory of a connection, CPU of them all.",
        discussion: """
            Memory is what the processes given with --pid grew by, divided by the connections: start them anew for each
            run. CPU is theirs over the measured seconds; take at least as many as there are between two heartbeats.
            """
    )

    @OptionGroup var options: BenchOptions

    @Option(help: "Connections.")
    var connections = 15_000

    @Option(help: "Rooms that each connection joins.")
    var roomsEach = 0

    @Option(help: "Connections that are in the same rooms.")
    var members = 10

    func validate() throws {
        try validateCounts(("--connections", connections, 1), ("--rooms-each", roomsEach, 0), ("--members", members, 1))
        guard connections % members == 0 || roomsEach == 0 else {
            throw ValidationError("--connections is a multiple of --members.")
        }
    }

    func run() throws {
        try options.report { listener throws(LoadError) in
            var traffic = Traffic("idle", .connection, try options.load(seconds: 30))
            traffic.publishers = 0
            traffic.receivers = roomsEach == 0 ? 1 : members
            traffic.rooms = connections / traffic.receivers
            traffic.roomsEach = roomsEach
            return try traffic.run(listener)
        }
    }
}

struct BenchConnectCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "connect",
        abstract: "Connections that are opened, welcomed and closed: handshakes a second.",
        discussion: "With wss:// each makes a whole TLS handshake, too: none resumes the session of another."
    )

    @OptionGroup var options: BenchOptions

    @Option(help: "Connections that may be open at once.")
    var clients = 32

    @Option(help: "Handshakes a second; 0 is as many as --clients can.")
    var rate = 0.0

    func validate() throws {
        try validateCounts(("--clients", clients, 1))
        try validateRate(rate)
    }

    func run() throws {
        try options.report { listener throws(LoadError) in
            var handshakes = Handshakes(try options.load())
            handshakes.clients = clients
            handshakes.rate = rate
            return try handshakes.run(listener)
        }
    }
}

struct BenchPresenceCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "presence",
        abstract: "Users that join and leave before observers, whose lists must be right at the end: joins a second."
    )

    @OptionGroup var options: BenchOptions

    @Option(help: "Rooms.")
    var rooms = 10

    @Option(help: "Members of each room that stay and watch.")
    var observers = 5

    @Option(help: "Members of each room that come and go.")
    var churners = 10

    @Option(help: "Joins a second of all together, each followed by a leave; 0 is as many as they can.")
    var rate = 0.0

    func validate() throws {
        try validateCounts(("--rooms", rooms, 1), ("--observers", observers, 1), ("--churners", churners, 1))
        guard observers + churners <= 100 else {
            throw ValidationError("--observers and --churners are 100 together at most: lists show no more.")
        }
        try validateRate(rate)
    }

    func run() throws {
        try options.report { listener throws(LoadError) in
            var churn = Churn(try options.load())
            churn.rooms = rooms
            churn.observers = observers
            churn.churners = churners
            churn.rate = rate
            return try churn.run(listener)
        }
    }
}

struct BenchPublishCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "publish",
        abstract: "Publishers alone, each acknowledgement checked: acked messages a second, and their price."
    )

    @OptionGroup var options: BenchOptions
    @OptionGroup var messages: BenchMessageOptions

    @Option(help: "Publishers, the same number in each room.")
    var publishers = 256

    @Option(help: "Rooms.")
    var rooms = 64

    func validate() throws {
        try validateCounts(("--publishers", publishers, 1), ("--rooms", rooms, 1))
        guard publishers % rooms == 0 else { throw ValidationError("--publishers is a multiple of --rooms.") }
    }

    func run() throws {
        try options.report { listener throws(LoadError) in
            var traffic = Traffic("publish", .acknowledgement, try options.load())
            traffic.rooms = rooms
            traffic.publishers = publishers / rooms
            messages.apply(to: &traffic)
            return try traffic.run(listener)
        }
    }
}

struct BenchSoakCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "soak",
        abstract: "The load of `rooms` for long, with figures each minute: whether anything grows or gets slower."
    )

    @OptionGroup var options: BenchOptions
    @OptionGroup var shape: BenchRoomsOptions
    @OptionGroup var messages: BenchMessageOptions

    @Option(help: "Seconds between two lines of figures.")
    var interval = 60.0

    func validate() throws {
        guard (0.1...86400).contains(interval) else { throw ValidationError("--interval is 0.1 to 86400.") }
    }

    func run() throws {
        try options.report { listener throws(LoadError) in
            var load = try options.load(seconds: 3600)
            load.interval = interval
            var traffic = Traffic("soak", .delivery, load)
            shape.apply(to: &traffic)
            messages.apply(to: &traffic, usualRate: 1000)
            return try traffic.run(listener)
        }
    }
}
