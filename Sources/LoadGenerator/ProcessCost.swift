import CLinux
import Glibc

/// What the kernel says of a process at one moment.
struct ProcessSample {
    /// User and system time of all its threads, ended ones too, to the nanosecond.
    let cpuNanoseconds: UInt64
    /// Resident memory in bytes.
    let resident: Int

    /// - Throws: when there is no such process.
    init(of pid: Int32) throws(LoadError) {
        var clock = clockid_t()
        guard clock_getcpuclockid(pid, &clock) == 0 else { throw LoadError("there is no process \(pid)") }
        cpuNanoseconds = nanoseconds(of: clock)
        let words = readText("/proc/\(pid)/statm").split(separator: " ")
        resident = (words.count > 1 ? Int(words[1]) ?? 0 : 0) * Int(sysconf(Int32(_SC_PAGESIZE)))
    }
}

/// What one process cost between two moments.
package struct ProcessCost: Sendable {
    package let pid: Int32
    package let name: String
    package let cpuSeconds: Double
    /// Bytes of resident memory: before the first connection, at the first of the two moments, at the second.
    package let residentAtStart: Int
    package let residentBefore: Int
    package let residentAfter: Int
}

/// Samples processes before a run, at the start of its measurement and at its end.
struct ProcessWatch {
    private let pids: [Int32]
    private let atStart: [ProcessSample]
    private var before: [ProcessSample]

    init(_ pids: [Int32]) throws(LoadError) {
        self.pids = pids
        atStart = try Self.samples(of: pids)
        before = atStart
    }

    /// The measurement starts.
    mutating func mark() throws(LoadError) {
        before = try Self.samples(of: pids)
    }

    func finish() throws(LoadError) -> [ProcessCost] {
        let after = try Self.samples(of: pids)
        return pids.indices.map { index in
            ProcessCost(
                pid: pids[index],
                name: String(readText("/proc/\(pids[index])/comm").prefix { $0 != "\n" }),
                cpuSeconds: Double(after[index].cpuNanoseconds - before[index].cpuNanoseconds) / 1e9,
                residentAtStart: atStart[index].resident,
                residentBefore: before[index].resident,
                residentAfter: after[index].resident
            )
        }
    }

    private static func samples(of pids: [Int32]) throws(LoadError) -> [ProcessSample] {
        var samples: [ProcessSample] = []
        for pid in pids { samples.append(try ProcessSample(of: pid)) }
        return samples
    }
}

func nanoseconds(of clock: clockid_t = CLOCK_MONOTONIC) -> UInt64 {
    var time = timespec()
    clock_gettime(clock, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

private func readText(_ path: String) -> String {
    let file = open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { return "" }
    defer { close(file) }
    var bytes = [UInt8](repeating: 0, count: 512)
    let n = read(file, &bytes, bytes.count)
    return String(decoding: bytes.prefix(max(0, n)), as: UTF8.self)
}
