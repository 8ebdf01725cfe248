import Testing

@testable import RedisClient

@Suite("The pipeline")
struct RedisPipelineTests {
    private func replied(_ pipeline: inout RedisPipeline<String>, noScript: Bool = false) -> String {
        let action = pipeline.received { noScript ? $0 + "'" : nil }
        return switch action {
        case .complete(let request): request
        case .discard: "-"
        case .violation: "!"
        }
    }

    @Test("replies answer commands in order; one too many is a violation")
    func order() {
        var pipeline = RedisPipeline<String>()
        for name in ["a", "b", "c"] {
            #expect(pipeline.submit(name, deadline: 10, now: 0) == .write)
        }
        #expect((0..<4).map { _ in replied(&pipeline) } == ["a", "b", "c", "!"])
    }

    @Test("a command whose deadline passed keeps its place")
    func deadline() {
        var pipeline = RedisPipeline<String>()
        _ = pipeline.submit("late", deadline: 10, now: 0)
        _ = pipeline.submit("patient", deadline: 30, now: 0)
        #expect(pipeline.sweep(now: 9, silenceTimeout: 100).expired.isEmpty)
        let sweep = pipeline.sweep(now: 10, silenceTimeout: 100)
        #expect(sweep.expired.map(\.request) == ["late"])
        #expect(sweep.expired.allSatisfy { $0.wasWritten })
        #expect(pipeline.sweep(now: 11, silenceTimeout: 100).expired.isEmpty)
        #expect(replied(&pipeline) == "-")
        #expect(replied(&pipeline) == "patient")
        #expect(pipeline.isEmpty)
    }

    @Test("silence counts from the later of the last byte and the first command after quiet")
    func silence() {
        var pipeline = RedisPipeline<String>()
        #expect(!pipeline.sweep(now: 1000, silenceTimeout: 10).isSilent)
        _ = pipeline.submit("a", deadline: .max, now: 1000)
        _ = pipeline.submit("b", deadline: .max, now: 1008)
        #expect(!pipeline.sweep(now: 1009, silenceTimeout: 10).isSilent)
        #expect(pipeline.sweep(now: 1010, silenceTimeout: 10).isSilent)
        pipeline.heard(now: 1010)
        #expect(!pipeline.sweep(now: 1019, silenceTimeout: 10).isSilent)
    }

    @Test("a process that stood still was not late")
    func stall() {
        var pipeline = RedisPipeline<String>()
        _ = pipeline.submit("a", deadline: 10, now: 0)
        _ = pipeline.submit("for ever", deadline: .max, now: 0)
        pipeline.extendDeadlines(by: 1000)
        let sweep = pipeline.sweep(now: 1009, silenceTimeout: 100)
        #expect(sweep.expired.isEmpty)
        #expect(!sweep.isSilent)
        #expect(pipeline.sweep(now: 1010, silenceTimeout: 100).expired.count == 1)
    }

    @Test("after NOSCRIPT all that follows is held, and goes after what was refused")
    func noScript() {
        var pipeline = RedisPipeline<String>()
        for name in ["a", "b", "c", "d"] {
            _ = pipeline.submit(name, deadline: 100, now: 0)
        }
        #expect(replied(&pipeline, noScript: true) == "-")
        #expect(pipeline.submit("e", deadline: 100, now: 0) == .hold)
        #expect(pipeline.release() == nil)
        #expect(replied(&pipeline, noScript: true) == "-")
        #expect(replied(&pipeline) == "c")
        #expect(pipeline.submit("f", deadline: 100, now: 0) == .hold)
        #expect(pipeline.release() == nil)
        #expect(replied(&pipeline, noScript: true) == "-")
        #expect(pipeline.release()?.map(\.request) == ["a'", "b'", "d'", "e", "f"])
        #expect(pipeline.release() == nil)
        #expect(pipeline.submit("g", deadline: 100, now: 0) == .write)
    }

    @Test("what is held or refused expires as not written, and is not sent any more")
    func heldDeadline() {
        var pipeline = RedisPipeline<String>()
        _ = pipeline.submit("refused", deadline: 10, now: 0)
        _ = pipeline.submit("in flight", deadline: 100, now: 0)
        _ = replied(&pipeline, noScript: true)
        _ = pipeline.submit("held", deadline: 10, now: 0)
        _ = pipeline.submit("held on", deadline: 100, now: 0)
        let expired = pipeline.sweep(now: 10, silenceTimeout: 100).expired
        #expect(expired.map(\.request) == ["refused'", "held"])
        #expect(expired.allSatisfy { !$0.wasWritten })
        #expect(replied(&pipeline) == "in flight")
        #expect(pipeline.release()?.map(\.request) == ["held on"])
    }

    @Test("the reply that nobody waits for is discarded")
    func unobserved() {
        var pipeline = RedisPipeline<String>()
        pipeline.submitUnobserved(now: 0)
        _ = pipeline.submit("a", deadline: 1, now: 0)
        #expect(replied(&pipeline) == "-")
        #expect(replied(&pipeline) == "a")
    }

    @Test("a lost connection fails everything, and says what may have run")
    func fail() {
        var pipeline = RedisPipeline<String>()
        _ = pipeline.submit("refused", deadline: 10, now: 0)
        _ = pipeline.submit("in flight", deadline: 100, now: 0)
        _ = replied(&pipeline, noScript: true)
        _ = pipeline.submit("held", deadline: 10, now: 0)
        let failed = pipeline.fail()
        #expect(failed.map(\.request) == ["in flight", "refused'", "held"])
        #expect(failed.map(\.wasWritten) == [true, false, false])
        #expect(pipeline.isEmpty)
        #expect(pipeline.submit("next", deadline: 10, now: 0) == .write)
    }

    @Test("the queue keeps its order through any mix of pushes and pops")
    func queue() {
        var queue = FIFO<Int>()
        var generator = SystemRandomNumberGenerator()
        var pushed = 0
        var popped = 0
        for _ in 0..<20_000 {
            if Int.random(in: 0..<100, using: &generator) < (pushed < 10_000 ? 55 : 45) {
                queue.append(pushed)
                pushed += 1
            } else if let value = queue.popFirst() {
                #expect(value == popped)
                popped += 1
            }
            #expect(queue.count == pushed - popped)
        }
    }
}
