import Glibc
import Synchronization

/// Runs a `DevPlan`: brings what happens (signals, ends, readiness, time) to the `Supervision` and does what it says, on
/// the thread that called `run`.
final class DevCluster: Sendable {
    private enum Event: Sendable {
        case signal(Int32)
        case ready(child: Int, run: Int)
        case slow(child: Int, run: Int, reason: String)
    }

    private struct Process {
        var pid: pid_t
        /// Counts the starts of this child, so that news about an earlier one is told apart.
        var run: Int
    }

    /// After this long without readiness, its reason is said once.
    private static let slowAfter: Int64 = 15_000

    private let plan: DevPlan
    private let output: DevOutput
    private let environment: [String: String]
    private let events = Mutex<[Event]>([])
    private let wakeReader: Int32
    private let wakeWriter: Int32
    /// The read end that each child inherits; the write end closes when this process is gone, however it went.
    private let lifeReader: Int32
    private let lifeWriter: Int32
    private let processes: Mutex<[Process?]>

    init(plan: DevPlan, environment: [String: String], output: DevOutput) throws(Failure) {
        self.plan = plan
        self.output = output
        self.environment = environment
        let wake = try Self.makePipe()
        let life = try Self.makePipe()
        (wakeReader, wakeWriter) = wake
        (lifeReader, lifeWriter) = life
        processes = Mutex(plan.children.map { _ in nil })
    }

    private static func makePipe() throws(Failure) -> (Int32, Int32) {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw Failure(.failed, "no pipe: \(ChildProcess.reason(errno))") }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        return (ends[0], ends[1])
    }

    /// Returns when the last child has ended after SIGINT, SIGTERM or SIGHUP.
    /// - Parameters:
    ///   - patience: milliseconds that a child has to end.
    ///   - announce: called once when all is ready, with the process id of each child by name.
    func run(patience: Int64, announce: ([String: pid_t]) -> Void) {
        Signals.handle([SIGINT, SIGTERM, SIGHUP, SIGCHLD]) { self.post(.signal($0)) }
        var state = Supervision(tiers: plan.children.map(\.tier), patience: patience)
        var pending = state.begin()
        while true {
            while !pending.isEmpty {
                let action = pending.removeFirst()
                if action == .finish { return }
                pending += perform(action, &state, announce)
            }
            for event in nextEvents(until: state.deadline) { pending += handle(event, &state) }
            pending += state.tick(now: Self.now())
        }
    }

    private func handle(_ event: Event, _ state: inout Supervision) -> [Supervision.Action] {
        switch event {
        case .signal(SIGCHLD):
            return reap(&state)
        case .signal(let number):
            if !state.isStopping { output.say(number == SIGINT ? "ending (Ctrl-C again kills)" : "ending") }
            return state.stop(now: Self.now())
        case .ready(let child, let run):
            guard current(child)?.run == run else { return [] }
            return state.ready(child, now: Self.now())
        case .slow(let child, let run, let reason):
            guard current(child)?.run == run, !state.isStopping else { return [] }
            output.say("\(plan.children[child].name) is not ready yet: \(reason)")
            return []
        }
    }

    private func perform(
        _ action: Supervision.Action, _ state: inout Supervision, _ announce: ([String: pid_t]) -> Void
    ) -> [Supervision.Action] {
        switch action {
        case .start(let child):
            return start(child, &state)
        case .reportRestart(let child, let delay):
            output.say("\(plan.children[child].name) starts again in \(Double(delay) / 1000) s")
        case .reportReady(let child, let again):
            let pid = current(child)?.pid ?? 0
            output.say("\(plan.children[child].name) is ready\(again ? " again" : "") (process \(pid))")
        case .announce:
            let pids = plan.children.enumerated().compactMap { index, child in
                current(index).map { (child.name, $0.pid) }
            }
            announce(Dictionary(uniqueKeysWithValues: pids))
        case .terminate(let child):
            if let process = current(child) { kill(process.pid, SIGTERM) }
        case .kill(let child):
            if let process = current(child) {
                output.say("\(plan.children[child].name) is killed")
                kill(-process.pid, SIGKILL)
            }
        case .finish:
            break
        }
        return []
    }

    private func start(_ index: Int, _ state: inout Supervision) -> [Supervision.Action] {
        let child = plan.children[index]
        var environment = environment
        for (key, value) in child.environment { environment[key] = value }
        let run = processes.withLock { ($0[index]?.run ?? 0) + 1 }
        do throws(Failure) {
            let started = try ChildProcess.spawn(
                child.program, child.arguments, environment: environment, watch: lifeReader)
            processes.withLock { $0[index] = Process(pid: started.pid, run: run) }
            output.follow(started.output, of: index)
            watchReadiness(of: index, run: run)
            return []
        } catch {
            output.say(error.sentence)
            return state.ended(index, now: Self.now())
        }
    }

    private func reap(_ state: inout Supervision) -> [Supervision.Action] {
        var actions: [Supervision.Action] = []
        for (index, child) in plan.children.enumerated() {
            guard let process = current(index) else { continue }
            var status: Int32 = 0
            guard waitpid(process.pid, &status, WNOHANG) == process.pid else { continue }
            processes.withLock { $0[index] = Process(pid: 0, run: process.run) }
            let end = ProcessEnd(status: status)
            if !state.isStopping {
                let log = child.log.map { "; its log is \($0)" } ?? ""
                output.say("\(child.name) (process \(process.pid)) ended \(end)\(log)")
            }
            actions += state.ended(index, now: Self.now())
        }
        return actions
    }

    private func current(_ child: Int) -> Process? {
        processes.withLock { $0[child] }.flatMap { $0.pid == 0 ? nil : $0 }
    }

    private func watchReadiness(of index: Int, run: Int) {
        let readiness = plan.children[index].readiness
        Threads.detach {
            let began = Self.now()
            var saidSlow = false
            while self.current(index)?.run == run {
                switch readiness.ask() {
                case .ready:
                    self.post(.ready(child: index, run: run))
                    return
                case .notYet(let reason):
                    if !saidSlow, Self.now() - began > Self.slowAfter {
                        saidSlow = true
                        self.post(.slow(child: index, run: run, reason: reason))
                    }
                    usleep(Self.now() - began < 3000 ? 30_000 : 250_000)
                }
            }
        }
    }

    private func post(_ event: Event) {
        events.withLock { $0.append(event) }
        var byte: UInt8 = 0
        _ = write(wakeWriter, &byte, 1)
    }

    private func nextEvents(until deadline: Int64?) -> [Event] {
        let wait = deadline.map { max(0, min($0 - Self.now(), 3_600_000)) }
        var poller = pollfd(fd: wakeReader, events: Int16(POLLIN), revents: 0)
        if poll(&poller, 1, wait.map(Int32.init) ?? -1) > 0 {
            var bytes = [UInt8](repeating: 0, count: 64)
            _ = read(wakeReader, &bytes, bytes.count)
        }
        return events.withLock { list in
            defer { list = [] }
            return list
        }
    }

    private static func now() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
    }
}
