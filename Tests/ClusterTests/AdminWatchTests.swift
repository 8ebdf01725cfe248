import Glibc
import TestSupport
import Testing

@Suite("Commands that go on until Ctrl-C")
struct AdminWatchTests {
    private func martlet(_ redis: ClusterRedis, _ arguments: String...) async throws -> ChildProcess {
        try await ChildProcess.spawn(
            MartletProgram.path, arguments + ["--redis", redis.url], name: "martlet",
            environment: ["PATH": "/usr/bin:/bin"])
    }

    private func firstLine(of process: ChildProcess) async throws {
        _ = try await process.output.wait(within: .seconds(30), "a line") { $0.text.contains("\n") ? true : nil }
    }

    @Test("Ctrl-C is their proper end: exit code 0 and not a word")
    func interrupted() async throws {
        let redis = try await ClusterRedis.start()
        let publish = try await martlet(redis, "admin", "publish", "r", "hi", "--create")
        #expect(try await publish.waitForExit(within: .seconds(30)) == .status(0))
        for arguments in [["nodes", "--watch"], ["rooms", "--watch", "--json"], ["tail", "r"]] {
            for signal in [SIGINT, SIGTERM] {
                let process = try await ChildProcess.spawn(
                    MartletProgram.path, ["admin"] + arguments + ["--redis", redis.url], name: "martlet",
                    environment: ["PATH": "/usr/bin:/bin"])
                try await firstLine(of: process)
                process.send(signal)
                #expect(try await process.waitForExit(within: .seconds(30)) == .status(0))
                #expect(process.output.current.errorText.isEmpty)
            }
        }
        await redis.stop()
    }

    @Test("--watch that a program reads ends with 3 and a sentence when Redis goes away")
    func redisGone() async throws {
        let redis = try await ClusterRedis.start()
        let watch = try await martlet(redis, "admin", "nodes", "--watch", "--json", "--every", "0.1")
        try await firstLine(of: watch)
        await redis.stop()
        #expect(try await watch.waitForExit(within: .seconds(60)) == .status(3))
        #expect(watch.output.current.standardErrorLines.count == 1)
        #expect(watch.output.current.errorText.hasPrefix("martlet: Redis at "))
    }
}
