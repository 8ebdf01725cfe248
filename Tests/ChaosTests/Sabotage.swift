import TestSupport
import Testing

/// A scenario, and a protection without which it must fail.
///
/// Most protections are taken away by ``lines``: a proxy between nodes and Redis replaces a line of a Lua script on its way.
/// What nodes do by themselves, without Redis, cannot be taken away so: the probe of a deaf subscription, the limit of
/// accepts, the single read for many who come back, backoff with jitter. The scenarios of these lack the log instead, on
/// which all of them lean: what was missed meanwhile must be read from it.
struct Sabotage: Sendable, CustomTestStringConvertible {
    let scenario: String
    /// What the scenario shows, as a sentence. With the two names beside it, it makes a table of docs/guarantees.md.
    let shows: String
    let protection: String
    /// Lines of scripts, each with what stands there instead.
    var lines: [String: String] = [:]
    /// What else is taken away.
    var change: @Sendable (inout Scenario) -> Void = { _ in }
    /// Whether the figures tell what is missing.
    let isSeen: @Sendable (Verdict) -> Bool

    var testDescription: String { "\(scenario), without: \(protection)" }

    /// The scenario in a cluster without the protection.
    func applied(to scenario: Scenario) -> Scenario {
        var scenario = scenario
        if !lines.isEmpty { scenario.options.proxies.insert(.redis) }
        for (line, instead) in lines {
            scenario.options.words[line] =
                instead + String(repeating: " ", count: max(0, line.utf8.count - instead.utf8.count))
        }
        scenario.convergence = .seconds(30)
        change(&scenario)
        return scenario
    }

    static let all = processes + redis + links + crowd
}

extension Sabotage {
    /// Of room_publish.lua: nothing is stored.
    private static let noLog = ["local most, last_channel = ARGV[2] + 0,": "local most, last_channel = 0,"]
    /// Of room_history.lua: the log is there, and every page of it is empty.
    private static let noReading = ["meta[5] or '0', more, entries, too_old }": "meta[5] or '0', more, {}, 0 }"]
    /// Of session_adopt.lua: no session is ever there to be adopted.
    private static let noAdoption = [
        "if (session.owner ~= ARGV[1] and not is_again) or (session.secret or '') == '' then": "if true then"
    ]
    /// Of room_publish.lua: no id is kept.
    private static let noIDs = [
        "    call('HSET', KEYS[3], unpack(sent))": "", "string.rep('-', 65), unpack(sent))": "string.rep('-', 65))",
    ]
    /// Of room_publish.lua, each message stands alone, and all tags are one; of room_turn.lua, the epoch stays.
    private static let noProof = [
        "local EXACT = 256": "local EXACT = 9e9",
        "local number, head = format('%d', seq), ts .. ' ' .. format('%d', count)":
            "records = 'same' .. records:sub(5) local number, head = seq, ts .. ' 1'",
        "tag = last_tag": "tag = 'same'",
        "redis.call('HSET', KEYS[1], 'epoch', ARGV[2])": "",
    ]

    /// Nobody need wait for what cannot come.
    private static let neverAgrees: @Sendable (inout Scenario) -> Void = { $0.convergence = .seconds(2) }

    private static let processes = [
        Sabotage(
            scenario: "a node is killed",
            shows: "Its clients go on elsewhere with all that was said meanwhile",
            protection: "messages are kept in a log", lines: noLog
        ) { $0.gaps > 0 },
        Sabotage(
            scenario: "a node stands still",
            shows: "Its users are in their rooms all the while, on whichever node they come back",
            protection: "who sweeps a node adopts its sessions", lines: noAdoption
        ) { $0.falseLeaves > 0 },
        Sabotage(
            scenario: "a router is killed",
            shows: "Its clients come back through another and have missed nothing",
            protection: "messages are kept in a log", lines: noLog
        ) { $0.gaps > 0 },
        Sabotage(
            scenario: "a router is killed",
            shows: "Nobody takes a node for dead that lives",
            protection: "only a lease that has ended lets others sweep a node",
            lines: ["((tonumber(node[2]) or 0) >= now or now > tonumber(ARGV[7]))": "false"],
            change: { $0.options.environment["MARTLET_RESUME_GRACE_SECONDS"] = "0" }
        ) { $0.falseLeaves > 0 },
        Sabotage(
            scenario: "all nodes restart, one after the other",
            shows: "Clients are passed on from node to node and miss nothing",
            protection: "what was missed is read from the log", lines: noReading,
            // They are away so briefly that little is said meanwhile.
            change: { $0.load.interval = 100 }
        ) { $0.gaps > 0 },
    ]

    private static let redis = [
        Sabotage(
            scenario: "Redis is killed and has all of its log",
            shows: "With `appendfsync always` all that was acknowledged is there again, and no gap is said",
            protection: "Redis keeps an append-only file", change: { $0.options.isDurable = false }
        ) { $0.gaps > 0 },
        Sabotage(
            scenario: "Redis is killed and has lost the last second",
            shows: "Everybody is told what Redis forgot",
            protection: "tags prove a fork, and the epoch turns", lines: noProof, change: neverAgrees
        ) { $0.gaps == 0 && $0.has(.unsaid) },
        Sabotage(
            scenario: "Redis stands still for 8 s",
            shows: "What is sent again meanwhile is stored once",
            protection: "ids of publishes are remembered", lines: noIDs
        ) { $0.doubled > 0 },
        Sabotage(
            scenario: "a replica that lags is promoted",
            shows: "Everybody is told what the replica never got",
            protection: "tags prove a fork, and the epoch turns", lines: noProof, change: neverAgrees
        ) { $0.gaps == 0 && $0.has(.unsaid) },
        Sabotage(
            scenario: "a replica that lags is promoted, and acks waited for it",
            shows: "Whatever was acknowledged is there on the replica",
            protection: "acks wait for replicas (`MARTLET_ACK_REPLICAS`)",
            change: { $0.options.environment["MARTLET_ACK_REPLICAS"] = "0" }
        ) { $0.has(.missing) },
        Sabotage(
            scenario: "room keys expire between visits",
            shows: "Who comes back finds the numbers going on, and nothing was missed",
            protection: "a room's position outlives its log",
            lines: [
                "redis.call('PEXPIRE', KEYS[1], integer(head.age + head.keep))":
                    "redis.call('PEXPIRE', KEYS[1], integer(head.age))"
            ]
        ) { $0.gaps > 0 && $0.has(.unsaid) },
        Sabotage(
            scenario: "FLUSHALL",
            shows: "Everybody is told that Redis forgot, and numbers of the two stories are not compared",
            protection: "a room that begins anew has another epoch",
            lines: noProof.merging(
                [
                    "if not epoch then epoch, before, tag, last, swap = ARGV[1], 0, '-', 0, false end":
                        "if not epoch then epoch, before, tag, last, swap = 'same', 0, '-', 0, false end",
                    "head = { epoch = ARGV[2], seq = 0,": "head = { epoch = 'same', seq = 0,",
                ]
            ) { $1 }, change: neverAgrees
        ) { $0.gaps == 0 && $0.has(.unsaid) },
    ]

    private static let links = [
        Sabotage(
            scenario: "the subscription alone is in a black hole",
            shows: "A deaf node brings its clients what it could not hear",
            protection: "what was missed is read from the log", lines: noReading
        ) { $0.gaps > 0 },
        Sabotage(
            scenario: "a node is cut off from Redis, not from its clients",
            shows: "Its clients stay in their rooms, and get what was said meanwhile",
            protection: "what was missed is read from the log", lines: noReading
        ) { $0.gaps > 0 },
        Sabotage(
            scenario: "clients reach the routers over a bad network",
            shows: "What is sent again because its ack was lost is stored once",
            protection: "ids of publishes are remembered", lines: noIDs
        ) { $0.doubled > 0 },
        Sabotage(
            scenario: "routers reach the nodes over a bad network",
            shows: "Whose connection broke misses nothing",
            protection: "messages are kept in a log", lines: noLog
        ) { $0.gaps > 0 },
        Sabotage(
            scenario: "300 clients come back at once",
            shows: "All get what they missed, and soon",
            protection: "what was missed is read from the log", lines: noReading,
            change: { $0.load.rooms = 3 }
        ) { $0.gaps > 0 },
        Sabotage(
            scenario: "30 % of the clients are slow",
            shows: "They are closed with 4001, resume and miss nothing, and nobody else notices",
            protection: "what waits for a client is bounded",
            change: { $0.options.environment["MARTLET_LIMIT_OUTBOUND_BYTES"] = "1073741824" }
        ) { $0.problems.contains { $0.text == Scenario.nobodyWasSlow } },
    ]
}

extension Verdict {
    fileprivate func has(_ kind: Kind) -> Bool { problems.contains { $0.kind == kind } }
}

extension Sabotage {
    private static let crowd = [
        Sabotage(
            scenario: "one of three nodes of 300 clients is killed",
            shows: "Its clients are soon where their keys lead, and the others stay where they are",
            protection: "the key is the user (`MARTLET_AFFINITY`)",
            change: { $0.options.environment["MARTLET_AFFINITY"] = "address" }
        ) { $0.problems.contains { $0.text.contains("its key leads to") } }
    ]
}
