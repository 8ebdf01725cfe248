import ChatCore
import Testing

@Suite("Rounds of publishes that replicas must have")
struct ReplicationRoundsTests {
    private func open() -> ReplicationRounds {
        var rounds = ReplicationRounds()
        _ = rounds.due()
        rounds.counted(isEnough: true)
        return rounds
    }

    @Test("Nothing is published before enough replicas follow, and they are counted again until they do")
    func beginning() {
        var rounds = ReplicationRounds()
        #expect(!rounds.mayPublish)
        #expect(rounds.due() == .count)
        #expect(rounds.due() == .none)
        rounds.counted(isEnough: false)
        #expect(!rounds.mayPublish)
        #expect(rounds.due() == .count)
        rounds.counted(isEnough: true)
        #expect(rounds.mayPublish)
        #expect(rounds.due() == .none)
    }

    @Test("All batches of a round are counted at once, behind the last answer")
    func round() {
        var rounds = open()
        for _ in 1...3 { _ = rounds.sent(deadline: 1) }
        #expect(rounds.mayPublish)
        #expect(rounds.answered(isStored: true) == .none)
        #expect(!rounds.mayPublish)
        #expect(rounds.answered(isStored: false) == .none)
        #expect(rounds.answered(isStored: true) == .count)
        #expect(!rounds.mayPublish)
        rounds.counted(isEnough: true)
        #expect(rounds.mayPublish)
    }

    @Test("A round in which nothing was stored counts nobody")
    func failed() {
        var rounds = open()
        _ = rounds.sent(deadline: 1)
        #expect(rounds.answered(isStored: false) == .none)
        #expect(rounds.mayPublish)
    }

    @Test("What came short, or lost its connection, closes the way until replicas were counted again")
    func short() {
        var rounds = open()
        _ = rounds.sent(deadline: 1)
        #expect(rounds.answered(isStored: true) == .count)
        rounds.counted(isEnough: false)
        #expect(!rounds.mayPublish)

        rounds = open()
        _ = rounds.sent(deadline: 1)
        _ = rounds.sent(deadline: 1)
        #expect(rounds.answered(isStored: true) == .none)
        #expect(rounds.answered(isStored: false) == .count)
        rounds.connectionLost()
        rounds.counted(isEnough: true)
        #expect(!rounds.mayPublish)
        #expect(rounds.due() == .count)
    }

    @Test("A round ends in time for the first of its batches, and the next round for its own")
    func deadline() {
        var rounds = open()
        #expect(rounds.sent(deadline: 300) == 300)
        #expect(rounds.sent(deadline: 200) == 200)
        #expect(rounds.sent(deadline: 400) == 200)
        for _ in 1...3 { _ = rounds.answered(isStored: true) }
        rounds.counted(isEnough: true)
        #expect(rounds.sent(deadline: 500) == 500)
    }
}
