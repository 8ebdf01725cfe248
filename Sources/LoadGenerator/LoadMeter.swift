import Glibc
import Telemetry

/// Where a run tells how it goes.
package struct LoadListener {
    /// Gets a line for the terminal about once a second.
    package let progress: (String) -> Void
    /// Gets a line each ``LoadOptions/interval``.
    package let interval: (String) -> Void

    package init(progress: @escaping (String) -> Void, interval: @escaping (String) -> Void) {
        (self.progress, self.interval) = (progress, interval)
    }
}

/// What was counted between two moments, on all sides.
struct Measured: Sendable {
    var page = Page()
    /// In seconds.
    var elapsed = 0.0
    var costs: [ProcessCost] = []
    var ownCPUSeconds = 0.0
    var intervals: [LoadInterval] = []

    /// What was due in the time and came after it counts among latencies, though not among operations: it is what a server
    /// that stood still at the end held up.
    mutating func add(late: Page) {
        page.deliveryLatency.add(late.deliveryLatency)
        page.answerLatency.add(late.answerLatency)
    }
}

/// The figures of one stretch of a long run.
package struct LoadInterval: Sendable {
    /// Since the measurement began, at its end.
    let second: Double
    let seconds: Double
    let page: Page
    let costs: [ProcessCost]

    var line: String {
        let latency = page.deliveries > 0 ? page.deliveryLatency : page.answerLatency
        let times = [0.5, 0.99, 0.999].map { milliseconds(latency.quantile($0)) } + [milliseconds(latency.maximum)]
        let processes = costs.map {
            "\($0.name) \($0.pid) \(decimal(100 * $0.cpuSeconds / seconds, 0)) % \($0.residentAfter >> 10) KiB"
        }
        return
            ([
                "\(decimal(second, 0)) s", "\(decimal(Double(page.answers) / seconds, 0)) acks a second",
                "\(decimal(Double(page.deliveries) / seconds, 0)) deliveries a second",
                "p50 p99 p99.9 max \(times.joined(separator: " ")) ms",
            ] + processes).joined(separator: " · ")
    }
}

/// Measures a run: what its threads counted, and what that cost. Made before the first connection.
struct LoadMeter {
    private let options: LoadOptions
    private var watch: ProcessWatch

    init(_ options: LoadOptions) throws(LoadError) {
        self.options = options
        watch = try ProcessWatch(options.pids)
    }

    /// Puts on the load, lets it warm up, and measures.
    mutating func measure<D>(
        _ threads: borrowing Threads<D>, _ listener: LoadListener
    ) throws(LoadError) -> Measured {
        threads.enter(.load)
        listener.progress("warming up")
        try rest(options.warmUpSeconds, threads.control)
        _ = try threads.turnPage()
        try watch.mark()
        var measured = Measured()
        var stretch = Page()
        var stretchWatch = watch
        var stretchBegan = 0.0
        let own = nanoseconds(of: CLOCK_PROCESS_CPUTIME_ID)
        let began = nanoseconds()
        while measured.elapsed < options.seconds {
            try rest(min(1, options.seconds - measured.elapsed), threads.control)
            let page = try threads.turnPage()
            measured.elapsed = Double(nanoseconds() - began) / 1e9
            measured.page.add(page)
            stretch.add(page)
            listener.progress(
                "\(decimal(measured.elapsed, 0)) s, \(measured.page.answers) answers, \(measured.page.deliveries) deliveries"
            )
            let isLast = measured.elapsed >= options.seconds
            if options.interval > 0, isLast || measured.elapsed - stretchBegan >= options.interval {
                let interval = LoadInterval(
                    second: measured.elapsed, seconds: measured.elapsed - stretchBegan, page: stretch,
                    costs: try stretchWatch.finish())
                listener.interval(interval.line)
                measured.intervals.append(interval)
                (stretch, stretchBegan) = (Page(), measured.elapsed)
                try stretchWatch.mark()
            }
        }
        measured.costs = try watch.finish()
        measured.ownCPUSeconds = Double(nanoseconds(of: CLOCK_PROCESS_CPUTIME_ID) - own) / 1e9
        return measured
    }

    /// Fails as soon as the run does.
    private func rest(_ seconds: Double, _ control: Control) throws(LoadError) {
        let end = nanoseconds() + UInt64(seconds * 1e9)
        while true {
            try control.check()
            let now = nanoseconds()
            guard now < end else { return }
            control.rest(seconds: Double(end - now) / 1e9)
        }
    }
}
