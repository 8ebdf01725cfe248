import ClusterState
import NIOCore
import Telemetry
import Testing

@testable import NodeServer

@Suite("What a node carries")
struct TrafficMeterTests {
    @Test("of a few messages each is measured; of many one of sixteen stands for all of them")
    func sampling() {
        var sampling = DeliverySampling()
        for _ in 0..<2 {
            sampling.tick()
            #expect((0..<32).allSatisfy { _ in sampling.next() == 1 })
            let more = (0..<1600).compactMap { _ in sampling.next() }
            #expect(more.count == 100 && more.allSatisfy { $0 == 16 })
        }
    }

    @Test("messages a second and the p99 are those of the last five seconds, of all shards")
    func window() throws {
        var meter = TrafficMeter()
        #expect(meter.figures.messagesIn == 0 && meter.figures.p99Milliseconds == nil)
        func second(_ number: Int64, publishes: Int, deliveries: Int, milliseconds: [UInt64]) {
            let shards = milliseconds.map { time in
                var delays = Histogram()
                delays.record(time * 1_000_000, times: 100)
                return ShardTraffic(deliveries: deliveries, delays: delays)
            }
            meter.read(
                publishes: publishes, shards + [ShardTraffic(deliveries: deliveries, delays: nil)],
                now: .uptimeNanoseconds(UInt64(number) * 1_000_000_000))
        }
        second(1, publishes: 0, deliveries: 0, milliseconds: [400])
        second(2, publishes: 10, deliveries: 100, milliseconds: [2, 3])
        #expect(meter.figures.messagesIn == 10)
        #expect(meter.figures.messagesOut == 300)
        #expect((394...400).contains(try #require(meter.figures.p99Milliseconds)))
        for number in 3...6 {
            second(Int64(number), publishes: 10 * (number - 1), deliveries: 100 * (number - 1), milliseconds: [2, 3])
        }
        #expect(meter.figures.messagesIn == 10)
        #expect(meter.figures.messagesOut == 300)
        #expect((2.9...3).contains(try #require(meter.figures.p99Milliseconds)), "the first second is past")
        for number in 7...11 { second(Int64(number), publishes: 50, deliveries: 500, milliseconds: []) }
        #expect(meter.figures.messagesIn == 0 && meter.figures.p99Milliseconds == nil)
    }
}
