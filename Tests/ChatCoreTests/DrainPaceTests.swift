import ChatCore
import Testing

@Suite("The pace of a drain")
struct DrainPaceTests {
    private let second: UInt64 = 1_000_000_000

    @Test("so many clients a second go, evenly within the second")
    func evenly() {
        let pace = DrainPace(clients: 1000, perSecond: 50, patience: 30_000_000_000)
        #expect(pace.interval == 20_000_000)
        let departures = (0..<1000).map(pace.departure)
        for beginning in stride(from: 1, to: 21, by: 1) {
            let within = departures.filter { $0 / 1_000_000_000 == beginning }
            #expect(within.count == 50)
        }
        #expect(departures.first == 1_000_000_000 && departures.last == 20_980_000_000)
    }

    @Test(
        "whatever the rate, the last goes within the patience",
        arguments: [
            (1, 1), (12, 1), (1000, 1), (99_999, 500), (1, 1_000_000), (7, 0), (0, 5),
        ])
    func inTime(clients: Int, perSecond: Int) {
        for patience: Int64 in [0, 1, 999_999_999, 3_000_000_000, 24_000_000_000] {
            let pace = DrainPace(clients: clients, perSecond: perSecond, patience: patience)
            #expect(pace.departure(of: max(0, clients - 1)) <= patience)
            #expect(pace.interval >= 0)
        }
        // Not faster than it has to be.
        let rushed = DrainPace(clients: clients, perSecond: 1, patience: 24_000_000_000)
        #expect(rushed.interval == min(1_000_000_000, 23_000_000_000 / Int64(max(1, clients))))
    }

    @Test(
        "the first goes a second after the drain begins, so that each hears of it a second before; at half a short patience"
    )
    func notice() {
        for patience: Int64 in [2_000_000_000, 24_000_000_000] {
            let pace = DrainPace(clients: 10, perSecond: 500, patience: patience)
            var departures = Departures<Int>()
            for place in 0..<10 { departures.add(place, at: 100 * second + UInt64(pace.departure(of: place))) }
            var told: [Int: UInt64] = [:]
            var next: UInt64? = 100 * second
            while let now = next {
                let actions = departures.advance(now: now)
                for (client, delay) in actions.tell {
                    #expect(delay == second)
                    told[client] = now
                }
                for client in actions.close { #expect(told[client].map { now - $0 } == second) }
                next = actions.next
            }
            #expect(told.count == 10)
        }
        #expect(DrainPace(clients: 10, perSecond: 500, patience: 500_000_000).departure(of: 0) == 250_000_000)
        #expect(DrainPace(clients: 10, perSecond: 500, patience: -1).departure(of: 9) == 0)
    }

    @Test("0 a second: all go at once, when they have been told")
    func atOnce() {
        #expect(DrainPace(clients: 100, perSecond: 0, patience: 24_000_000_000).departure(of: 99) == 1_000_000_000)
    }

    @Test(
        "each place is one client's, whatever table it stands in, and tables take turns",
        arguments: [
            [3, 3], [5, 0, 2], [0, 0], [], [1, 4],
        ])
    func places(counts: [Int]) {
        let places = DrainPace.places(of: counts)
        #expect(places.map(\.count) == counts)
        #expect(places.flatMap(\.self).sorted() == Array(0..<counts.reduce(0, +)))
        for table in places { #expect(table == table.sorted()) }
        if counts == [1, 4] { #expect(places == [[0], [1, 2, 3, 4]]) }
    }

    @Test("a client is told a second before its end, and closed at it; who goes sooner is told at once")
    func toldAndClosed() {
        var departures = Departures<String>()
        departures.add("now", at: 100 * second)
        departures.add("soon", at: 100 * second + 300)
        departures.add("later", at: 102 * second)
        let first = departures.advance(now: 100 * second)
        #expect(first.tell.map(\.client) == ["now", "soon"] && first.tell.map(\.delay) == [0, 300])
        #expect(first.close == ["now"])
        #expect(first.next == 100 * second + 1_000_000, "nobody looks at the clock all the time")
        let second = departures.advance(now: 100 * self.second + 1_000_000)
        #expect(second.tell.isEmpty && second.close == ["soon"])
        #expect(second.next == 101 * self.second)
        let third = departures.advance(now: 101 * self.second)
        #expect(third.tell.map(\.client) == ["later"] && third.tell.map(\.delay) == [self.second])
        #expect(third.close.isEmpty && third.next == 102 * self.second)
        let last = departures.advance(now: 102 * self.second)
        #expect(last.tell.isEmpty && last.close == ["later"] && last.next == nil)
        #expect(departures.advance(now: 200 * self.second).close.isEmpty, "once")
    }

    @Test("who comes late goes with the last, but not within a second, and nobody overtakes")
    func late() {
        var departures = Departures<String>()
        departures.add("a", at: 10 * second)
        departures.add("b", at: 5 * second)
        departures.addLast("c", now: 3 * second)
        #expect(departures.advance(now: 9 * second).close.isEmpty)
        #expect(departures.advance(now: 10 * second).close == ["a", "b", "c"])
        departures.addLast("d", now: 11 * second)
        let actions = departures.advance(now: 11 * second)
        #expect(actions.tell.map(\.delay) == [second] && actions.close.isEmpty)
        #expect(departures.advance(now: 12 * second).close == ["d"])
    }

    @Test("a node that stood still tells and closes all who are due, in order")
    func stoodStill() {
        var departures = Departures<Int>()
        for number in 0..<100 { departures.add(number, at: UInt64(number) * second) }
        let actions = departures.advance(now: 98 * second)
        #expect(actions.tell.map(\.client) == Array(0..<100))
        #expect(actions.close == Array(0...98))
        #expect(actions.next == 99 * second)
    }
}
