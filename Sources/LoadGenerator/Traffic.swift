import Synchronization

/// What each scenario can be told.
package struct LoadOptions: Sendable {
    package var endpoints: [Endpoint]
    /// Addresses to connect from, in turns, as text.
    package var sources: [String] = []
    /// Of `wss://` endpoints.
    package var trust = TLSTrust()
    package var seconds = 5.0
    package var warmUpSeconds = 1.0
    /// Processes of this machine whose CPU and memory are counted.
    package var pids: [Int32] = []
    /// Threads that receive, besides the one that publishes. Each wake-up of one more costs the server, too.
    package var threads = 1
    /// Seconds after which the figures so far are told; 0 tells none.
    package var interval = 0.0

    package init(endpoints: [Endpoint]) {
        self.endpoints = endpoints
    }

    func targets() throws(LoadError) -> [Target] {
        var addresses: [Address] = []
        for text in sources {
            guard let address = Address(text) else { throw LoadError("'\(text)' is no address to connect from") }
            addresses.append(address)
        }
        let tls = endpoints.contains(where: \.isSecure) ? try TLSContext(trust) : nil
        var targets: [Target] = []
        for endpoint in endpoints { targets.append(try Target(endpoint, sources: addresses, tls: tls)) }
        guard !targets.isEmpty else { throw LoadError("there is no endpoint") }
        return targets
    }
}

/// Rooms with receivers and publishers: the load behind `fanout`, `rooms`, `echo`, `publish`, `soak` and, without a publisher,
/// `idle`. A publisher sends when it is its turn by `rate`, with at most `inFlight` messages on their way: not acknowledged,
/// or not with all receivers.
package struct Traffic: Sendable {
    package enum Operation: String, Sendable {
        case delivery
        case acknowledgement = "acked message"
        case roundTrip = "round trip"
        case connection
    }

    package var scenario: String
    package var options: LoadOptions
    /// What the report counts costs by.
    package var operation: Operation
    package var rooms = 1
    /// Publishers of each room, who receive as well what the others publish.
    package var publishers = 1
    /// Members of each room who only receive.
    package var receivers = 0
    /// How many rooms each member joins; with more than one, or none, there are no publishers.
    package var roomsEach = 1
    package var inFlight = 1
    /// Messages a second of all publishers together; 0 is as fast as `inFlight` allows.
    package var rate = 0.0
    /// Length of each message's text.
    package var bytes = 150
    private let prefix = "bench." + String(UInt32.random(in: 0 ... .max), radix: 36)

    package init(_ scenario: String, _ operation: Operation, _ options: LoadOptions) {
        (self.scenario, self.operation, self.options) = (scenario, operation, options)
    }

    private var size: Int { publishers + receivers }

    /// Blocks for the whole run.
    package func run(_ listener: LoadListener) throws(LoadError) -> LoadReport {
        guard rooms > 0, size > 0, rooms * size <= 1_000_000, publishers == 0 || roomsEach == 1,
            (1...1024).contains(inFlight), (Text.stampBytes...Text.maximumBytes).contains(bytes), rate >= 0
        else {
            throw LoadError(
                "\(scenario) needs 1 to 1000000 connections, 1 to 1024 messages in flight and texts of"
                    + " \(Text.stampBytes) to 60000 bytes")
        }
        try requireDescriptors(rooms * size)
        var meter = try LoadMeter(options)
        let tallies = (0..<rooms).map { _ in RoomTally() }
        let control = try Control()
        let threads = try Threads(drivers(tallies, control), targets: try options.targets(), control: control)
        control.setBell { [first = threads.pollers.first] in first?.ring() }
        try threads.ramp(to: rooms * size, roomsEach > 0 ? "joined" : "connected", progress: listener.progress)
        var measured = try meter.measure(threads, listener)
        let isDone = {
            publishers == 0 || control.behind.load(ordering: .acquiring) == 0 && tallies.allSatisfy(isComplete)
        }
        let late = try threads.drain(seconds: 10, until: isDone) {
            let late = tallies.filter { !isComplete($0) }.count
            return "in \(late) of \(rooms) rooms messages did not reach everybody within 10 s"
        }
        if rate > 0 { measured.add(late: late) }
        guard publishers == 0 || measured.page.answers > 0 else {
            throw LoadError("no message was acknowledged in the time, so that nothing was checked (--rate, --seconds)")
        }
        try check(try threads.stop(), tallies)
        return LoadReport(
            scenario: scenario, parameters: parameters, operation: operation.rawValue,
            checked: publishers > 0
                ? "every message once, in order and unchanged, at \(rooms * size) members" : "all stayed connected",
            operations: operations(measured.page), rate: publishers > 0 ? rate : nil, connections: rooms * size,
            measured: measured)
    }

    private func operations(_ page: Page) -> Int {
        switch operation {
        case .delivery: page.deliveries
        case .acknowledgement, .roundTrip: page.answers
        case .connection: rooms * size
        }
    }

    private var parameters: [(name: String, value: Double)] {
        var all = [("rooms", rooms), ("publishers", publishers), ("receivers", receivers)]
        if publishers == 0 { all = [("members", size), ("rooms_each", roomsEach)] }
        if publishers > 0 { all += [("in_flight", inFlight), ("bytes", bytes)] }
        return all.map { ($0, Double($1)) }
    }

    private func isComplete(_ room: RoomTally) -> Bool {
        let sent = room.sent.load(ordering: .relaxed)
        return room.acked.load(ordering: .relaxed) == sent
            && room.delivered.load(ordering: .relaxed) == sent * (size - 1)
    }

    /// Publishers are on the first thread, receivers on the others.
    private func drivers(_ tallies: [RoomTally], _ control: Control) -> [Crowd] {
        let readers = receivers > 0 ? max(1, options.threads) : 0
        var members = [[Crowd.Member]](repeating: [], count: readers + (publishers > 0 ? 1 : 0))
        var senders: [Crowd.Publisher] = []
        for number in 0..<(rooms * size) {
            let room = number / size
            let place = number % size
            var member = Crowd.Member(number: number, target: room + place, rooms: names(of: room), room: room)
            var thread = 0
            if place < publishers {
                member.publisher = senders.count
                senders.append(
                    Crowd.Publisher(
                        slot: members[0].count, turn: senders.count,
                        text: Text(room: member.rooms[0], publisher: place, bytes: bytes),
                        due: [UInt64](repeating: 0, count: inFlight)))
            } else {
                thread = (publishers > 0 ? 1 : 0) + number % readers
            }
            members[thread].append(member)
        }
        let shared = tallies.enumerated().map { room, tally in
            Crowd.Room(
                tally: tally, receivers: size - 1, publishers: publishers,
                name: Array((names(of: room).first ?? "").utf8),
                bytes: bytes)
        }
        return members.enumerated().map { thread, members in
            Crowd(
                members: members, publishers: thread == 0 ? senders : [], rooms: shared,
                schedule: Schedule(takers: senders.count, rate: rate), inFlight: inFlight, window: 32, control: control)
        }
    }

    private func names(of room: Int) -> [String] {
        (0..<roomsEach).map { "\(prefix).\(room * roomsEach + $0)" }
    }

    /// Counts and order were checked on the way; this checks that nobody ended before the last message.
    private func check(_ crowds: [Crowd], _ tallies: [RoomTally]) throws(LoadError) {
        guard publishers > 0 else { return }
        for member in crowds.flatMap(\.members) {
            let last = Int64(tallies[member.room].sent.load(ordering: .relaxed))
            guard member.lastSeq - member.firstSeq == last else {
                throw LoadError(
                    "member \(member.number) ended \(member.lastSeq - member.firstSeq) of \(last) messages on")
            }
        }
    }
}
