import ChatCore
import Testing
import WireProtocol

private let second: UInt64 = 1_000_000_000

/// Nodes that tell each other once a second, each at a moment of its own, with an exchange that takes a while.
private struct Nodes {
    var shares: [UserShares]
    var reported: [Int]
    var taken = 0

    init(_ count: Int, rate: Int) throws {
        shares = try (0..<count).map { _ in try #require(UserShares(ratePerSecond: rate)) }
        reported = Array(repeating: 0, count: count)
    }

    /// - Parameter asked: messages a second through each node.
    mutating func run(_ asked: [Int], user: UserName, from start: Int, seconds: Int) {
        let steps = 1000
        for step in 0..<(seconds * steps) {
            let now = UInt64(start) * second + UInt64(step) * second / UInt64(steps)
            for node in shares.indices {
                let due = (step + 1) * asked[node] / steps - step * asked[node] / steps
                for _ in 0..<due where shares[node].take(user, now: now) == .pass { taken += 1 }
                if step % steps == node * 311 % steps {
                    reported[node] = shares[node].report().first?.demand ?? 0
                }
                if step % steps == (node * 311 + 20) % steps {
                    let others = reported.indices.filter { $0 != node }.map { reported[$0] }.reduce(0, +)
                    shares[node].learn(user, others: others, now: now)
                }
            }
        }
    }
}

@Suite("A user's rate across the cluster")
struct UserSharesTests {

    @Test("a user on one node has all of it")
    func oneNode() throws {
        var nodes = try Nodes(3, rate: 120)
        nodes.run([100, 0, 0], user: try UserName(validating: "alice"), from: 0, seconds: 20)
        #expect(nodes.taken == 2000)
        nodes.run([240, 0, 0], user: try UserName(validating: "alice"), from: 20, seconds: 20)
        #expect((2400...2700).contains(nodes.taken - 2000), "\(nodes.taken)")
    }

    @Test(
        "T21: who asks too much of several nodes gets it once, not once a node",
        arguments: [
            [100, 100, 100], [500, 500, 500], [1000, 50, 50], [121, 121, 121], [60, 60, 60], [30, 400, 0],
            [2000, 2000, 2000, 2000, 2000, 2000],
        ])
    func steadyOveruse(asked: [Int]) throws {
        var nodes = try Nodes(asked.count, rate: 120)
        nodes.run(asked, user: try UserName(validating: "alice"), from: 0, seconds: 3)
        nodes.taken = 0
        nodes.run(asked, user: try UserName(validating: "alice"), from: 3, seconds: 30)
        let rate = Double(nodes.taken) / 30
        #expect(rate <= 120 * 1.5 && rate >= 120 * 0.7, "\(rate) a second of \(asked)")
    }

    @Test("who asks less than the rate of all nodes together is never refused for long")
    func within() throws {
        var nodes = try Nodes(3, rate: 120)
        nodes.run([30, 30, 30], user: try UserName(validating: "alice"), from: 0, seconds: 30)
        #expect(nodes.taken == 2700)
    }

    @Test("a node that hears nothing of the others allows the whole rate again, and forgets who is silent")
    func alone() throws {
        let user = try UserName(validating: "alice")
        var shares = try #require(UserShares(ratePerSecond: 100))
        for _ in 0..<100 { #expect(shares.take(user, now: 0) == .pass) }
        #expect(shares.report().map(\.demand) == [100])
        shares.learn(user, others: 900, now: 0)
        let few = (0..<100).count { _ in shares.take(user, now: second) == .pass }
        #expect((5...15).contains(few), "\(few)")
        let all = (0..<200).count { _ in shares.take(user, now: 6 * second) == .pass }
        #expect(all == 100)
        for _ in 0..<12 { _ = shares.report() }
        #expect(shares.count == 0)
    }

    @Test("who sends little is spoken of to nobody; 0 lifts the limit")
    func silent() throws {
        var shares = try #require(UserShares(ratePerSecond: 160))
        for _ in 0..<9 { _ = shares.take(try UserName(validating: "alice"), now: 0) }
        #expect(shares.report().isEmpty)
        #expect(UserShares(ratePerSecond: 0) == nil)
    }
}
