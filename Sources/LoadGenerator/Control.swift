import CLinux
import Glibc
import Synchronization
import Telemetry

/// What was counted on all threads between two moments.
struct Page: Sendable {
    /// Messages that reached a receiver, each counted at each.
    var deliveries = 0
    /// Round trips: acknowledged messages, handshakes, joins.
    var answers = 0
    var deliveryLatency = Histogram()
    var answerLatency = Histogram()

    mutating func add(_ other: Page) {
        deliveries += other.deliveries
        answers += other.answers
        deliveryLatency.add(other.deliveryLatency)
        answerLatency.add(other.answerLatency)
    }
}

/// What the threads of a run and its caller share.
final class Control: Sendable {
    enum Phase: UInt8, AtomicRepresentable {
        /// Connections are made.
        case ramp
        /// Load is made.
        case load
        /// No new load; what is on its way arrives, and what was due before, which counts as late as it is.
        case drain
    }

    let phase = Atomic(Phase.ramp)
    /// When the load began, and when it ended, in monotonic nanoseconds.
    let beganAt = Atomic<UInt64>(0)
    let endedAt = Atomic<UInt64>(0)
    /// Publishers that have not sent all that was due before the load ended.
    let behind = Atomic(Int.max)
    /// Connections that have all that they wait for in the ramp.
    let ready = Atomic(0)
    let pageNumber = Atomic(0)
    private let handedIn = Mutex((count: 0, page: Page()))
    private let failure = Mutex<String?>(nil)
    private let bell = Mutex<(@Sendable () -> Void)?>(nil)
    /// An eventfd on which the caller waits.
    private let news: Int32

    init() throws(LoadError) {
        news = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
        guard news >= 0 else { throw .system("no eventfd") }
    }

    deinit {
        close(news)
    }

    /// The first reason is the one that the caller gets.
    func fail(_ reason: String) {
        failure.withLock { $0 = $0 ?? reason }
        ring(news)
    }

    func check() throws(LoadError) {
        if let reason = failure.withLock({ $0 }) { throw LoadError(reason) }
    }

    /// - Parameter wake: wakes the thread that publishes.
    func setBell(_ wake: @escaping @Sendable () -> Void) {
        bell.withLock { $0 = wake }
    }

    /// Deliveries that a publisher waits for have been made.
    func ringBell() {
        bell.withLock { $0?() }
    }

    func becameReady() {
        ready.add(1, ordering: .relaxed)
    }

    func handIn(_ page: Page) {
        handedIn.withLock {
            $0.count += 1
            $0.page.add(page)
        }
        ring(news)
    }

    /// The pages handed in, once they are so many.
    fileprivate func collect(_ threads: Int) -> Page? {
        handedIn.withLock { pages in
            guard pages.count == threads else { return nil }
            defer { pages = (0, Page()) }
            return pages.page
        }
    }

    /// Sleeps until there is news, or so long.
    func rest(seconds: Double) {
        var polled = pollfd(fd: news, events: Int16(POLLIN), revents: 0)
        let bound = UInt64(max(0, seconds) * 1e9)
        var time = timespec(tv_sec: Int(bound / 1_000_000_000), tv_nsec: Int(bound % 1_000_000_000))
        if ppoll(&polled, 1, &time, nil) > 0 {
            var drained: UInt64 = 0
            read(news, &drained, 8)
        }
    }
}

/// The page of one thread, in its driver.
struct OpenPage {
    var page = Page()
    private var number = 0

    /// Hands the page in and begins another when the caller has turned it.
    mutating func turn(_ control: Control) {
        let current = control.pageNumber.load(ordering: .acquiring)
        guard current != number else { return }
        number = current
        control.handIn(page)
        page = Page()
    }
}

/// When each of many takers is to act so that all together keep a rate: in turns, evenly spread.
struct Schedule {
    let takers: Int
    /// A second, all together; 0 is as fast as they can.
    let rate: Double
    var beganAt: UInt64 = 0
    /// What is due from then on is not done.
    var endsAt = UInt64.max
    /// How many turns have come so far.
    private var turns = 0

    init(takers: Int, rate: Double) {
        self.takers = takers
        self.rate = rate
    }

    /// Keeps to the phase that the run has entered.
    mutating func follow(_ phase: Control.Phase, of control: Control) {
        beganAt = control.beganAt.load(ordering: .relaxed)
        if phase == .drain { endsAt = control.endedAt.load(ordering: .relaxed) }
    }

    /// When this taker's action is due, counted from 0; nil when that has not come yet.
    func due(_ action: Int, of taker: Int, at now: UInt64) -> UInt64? {
        // Without a rate what was not sent in time is not due any more.
        guard rate > 0 else { return endsAt == .max ? now : nil }
        let due = time(of: action * takers + taker)
        return due <= now && due < endsAt ? due : nil
    }

    /// The takers whose turn has come since this was last asked, and when the next one comes.
    mutating func turn(at now: UInt64, _ each: (Int) -> Void) -> UInt64? {
        guard rate > 0, takers > 0 else { return nil }
        while true {
            let due = time(of: turns)
            guard due < endsAt else { return nil }
            guard due <= now else { return due }
            each(turns % takers)
            turns += 1
        }
    }

    private func time(of turn: Int) -> UInt64 {
        beganAt + UInt64(min(Double(turn) / rate * 1e9, 1e18))
    }
}

/// The threads of a run, from the first connection to the last message.
struct Threads<D: Driver>: ~Copyable {
    let control: Control
    let pollers: [Poller<D>]

    init(_ drivers: [D], targets: [Target], control: Control) throws(LoadError) {
        self.control = control
        var pollers: [Poller<D>] = []
        for driver in drivers { pollers.append(try Poller(driver, targets: targets)) }
        self.pollers = pollers
    }

    deinit {
        for poller in pollers { _ = poller.stop() }
    }

    /// Waits until so many connections are ready; fails when for 20 s none became so.
    func ramp(to count: Int, _ what: String, progress: (String) -> Void) throws(LoadError) {
        var seen = 0
        var deadline = nanoseconds() + 20_000_000_000
        while seen < count {
            control.rest(seconds: seen + 200 < count ? 0.25 : 0.005)
            try control.check()
            let now = nanoseconds()
            let ready = control.ready.load(ordering: .relaxed)
            if ready > seen {
                deadline = now + 20_000_000_000
                progress("\(ready) of \(count) \(what)")
            }
            seen = ready
            guard now < deadline else { throw LoadError("only \(seen) of \(count) were \(what) within 20 s") }
        }
    }

    func enter(_ phase: Control.Phase) {
        switch phase {
        case .ramp: break
        case .load: control.beganAt.store(nanoseconds(), ordering: .relaxed)
        case .drain: control.endedAt.store(nanoseconds(), ordering: .relaxed)
        }
        control.phase.store(phase, ordering: .sequentiallyConsistent)
        ringAll()
    }

    /// What has been counted since this was called last.
    func turnPage() throws(LoadError) -> Page {
        control.pageNumber.add(1, ordering: .releasing)
        ringAll()
        let deadline = nanoseconds() + 30_000_000_000
        while true {
            if let page = control.collect(pollers.count) { return page }
            try control.check()
            guard nanoseconds() < deadline else { throw LoadError("a thread of this program stood still for 30 s") }
            control.rest(seconds: 1)
        }
    }

    /// Ends the load and waits, checking now and then, until this holds.
    /// - Returns: what came meanwhile. It was due in the time that was measured, if there was a rate.
    func drain(
        seconds: Double, until condition: () -> Bool, orSay failure: () -> String
    ) throws(LoadError) -> Page {
        enter(.drain)
        try wait(seconds: seconds, for: condition, orSay: failure)
        return try turnPage()
    }

    /// Waits, checking now and then, until this holds.
    private func wait(seconds: Double, for condition: () -> Bool, orSay failure: () -> String) throws(LoadError) {
        let deadline = nanoseconds() + UInt64(seconds * 1e9)
        while !condition() {
            try control.check()
            guard nanoseconds() < deadline else { throw LoadError(failure()) }
            control.rest(seconds: 0.005)
        }
    }

    /// Ends the threads and gives back their drivers.
    func stop() throws(LoadError) -> [D] {
        var drivers: [D] = []
        for poller in pollers {
            if let driver = poller.stop() { drivers.append(driver) }
        }
        try control.check()
        return drivers
    }

    private func ringAll() {
        for poller in pollers { poller.ring() }
    }
}
