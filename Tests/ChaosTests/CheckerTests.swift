import Testing

/// Histories with each kind of fault: a checker that does not see them would prove nothing.
@Suite("The checker sees what went wrong")
struct CheckerTests {
    /// Builds a history: two clients in a room, `ann` publishes.
    private struct Story {
        var history: [Observation] = []
        var now: Int64 = 0

        mutating func add(_ client: String, _ event: Observation.Event) {
            now += 10
            history.append(Observation(at: now, client: client, event: event))
        }

        mutating func join(_ clients: String..., seq: Int64 = 0) {
            for client in clients { add(client, .joined(epoch: "e1", seq: seq, recovered: nil)) }
        }

        /// Said, sent, acknowledged to `ann` and delivered to all others.
        mutating func say(_ seq: Int64, to others: String...) {
            publish("\(seq)")
            add("ann", .acknowledged(id: "\(seq)", seq: seq, isDuplicate: false))
            for other in others { add(other, .delivered(seq: seq, text: "text-\(seq)")) }
        }

        mutating func publish(_ id: String) {
            add("ann", .published(id: id, text: "text-\(id)"))
            add("ann", .sent(id: id))
        }

        func checked(_ circumstances: Circumstances = Circumstances()) -> Verdict {
            Checker.check(history, circumstances)
        }
    }

    private func story(_ tell: (inout Story) -> Void) -> Story {
        var story = Story()
        story.join("ann", "bob")
        tell(&story)
        return story
    }

    private func kinds(_ verdict: Verdict) -> Set<Verdict.Kind> { Set(verdict.problems.map(\.kind)) }

    @Test("Nothing, where nothing is wrong, and counts what there was")
    func healthy() {
        let verdict = story { story in
            for seq in 1...5 { story.say(Int64(seq), to: "bob") }
            story.add("ann", .members(["ann", "bob"]))
            story.add("bob", .members(["ann", "bob"]))
        }.checked()
        #expect(verdict.problems.isEmpty, "\(verdict.problems)")
        #expect((verdict.published, verdict.acknowledged, verdict.delivered) == (5, 5, 10))
        #expect(verdict.acknowledgedShare == 1)
    }

    @Test("A hole in what a client gets")
    func hole() {
        let verdict = story { story in
            story.say(1, to: "bob")
            story.say(2)
            story.say(3, to: "bob")
        }.checked()
        #expect(verdict.missing == 1)
        #expect(kinds(verdict) == [.missing])
    }

    @Test("An acknowledged message at the end that another never gets")
    func tail() {
        let verdict = story { story in
            story.say(1, to: "bob")
            story.say(2)
            story.say(3)
        }.checked()
        #expect(verdict.missing == 2)
    }

    @Test("A hole between the publisher's own acks")
    func holeInAcks() {
        let verdict = story { story in
            story.say(1, to: "bob")
            story.publish("2")
            story.add("ann", .acknowledged(id: "2", seq: 3, isDuplicate: false))
            story.add("bob", .delivered(seq: 2, text: "other"))
            story.add("bob", .delivered(seq: 3, text: "text-2"))
        }.checked()
        #expect(verdict.missing == 1)
    }

    @Test("A message that comes twice")
    func twice() {
        let verdict = story { story in
            story.say(1, to: "bob")
            story.add("bob", .delivered(seq: 1, text: "text-1"))
        }.checked()
        #expect(verdict.doubled == 1)
    }

    @Test("A message that is stored twice")
    func storedTwice() {
        let verdict = story { story in
            story.say(1, to: "bob")
            story.add("ann", .delivered(seq: 2, text: "text-1"))
            story.add("bob", .delivered(seq: 2, text: "text-1"))
        }.checked()
        #expect(verdict.doubled == 1)
    }

    @Test("A publish sent again that gets another seq")
    func acknowledgedTwice() {
        let verdict = story { story in
            story.say(1, to: "bob")
            story.add("ann", .sent(id: "1"))
            story.add("ann", .acknowledged(id: "1", seq: 2, isDuplicate: false))
        }.checked()
        #expect(verdict.doubled > 0)
    }

    @Test("Two messages that change places for one of two clients")
    func twoOrders() {
        let verdict = story { story in
            story.say(1, to: "bob")
            story.publish("2")
            story.publish("3")
            story.add("ann", .acknowledged(id: "2", seq: 2, isDuplicate: false))
            story.add("ann", .acknowledged(id: "3", seq: 3, isDuplicate: false))
            story.add("bob", .delivered(seq: 2, text: "text-3"))
            story.add("bob", .delivered(seq: 3, text: "text-2"))
        }.checked()
        #expect(verdict.reordered == 2)
    }

    @Test("A seq that goes backwards")
    func backwards() {
        let verdict = story { story in
            story.say(1)
            story.say(2)
            story.add("bob", .delivered(seq: 2, text: "text-2"))
            story.add("bob", .delivered(seq: 1, text: "text-1"))
        }.checked()
        #expect(verdict.missing == 1 && verdict.reordered == 1)
    }

    @Test("Publishes of one connection whose seqs do not rise; after an error they need not")
    func publishOrder() {
        let wrong = story { story in
            story.publish("a")
            story.publish("b")
            story.add("ann", .acknowledged(id: "b", seq: 1, isDuplicate: false))
            story.add("ann", .acknowledged(id: "a", seq: 2, isDuplicate: false))
            story.add("bob", .delivered(seq: 1, text: "text-b"))
            story.add("bob", .delivered(seq: 2, text: "text-a"))
        }
        #expect(wrong.checked().reordered == 1)
        let right = story { story in
            story.publish("a")
            story.publish("b")
            story.add("ann", .refused(id: "a"))
            story.add("ann", .acknowledged(id: "b", seq: 1, isDuplicate: false))
            story.add("ann", .sent(id: "a"))
            story.add("ann", .acknowledged(id: "a", seq: 2, isDuplicate: false))
            story.add("bob", .delivered(seq: 1, text: "text-b"))
            story.add("bob", .delivered(seq: 2, text: "text-a"))
        }
        #expect(right.checked().problems.isEmpty, "\(right.checked().problems)")
    }

    @Test("A join that recovered nothing and says no gap; with the gap all is said")
    func unsaid() {
        func came(back gap: Bool) -> Verdict {
            story { story in
                story.say(1, to: "bob")
                story.add("bob", .disconnected(lastHeard: story.now))
                story.say(2)
                story.say(3)
                story.add("bob", .joined(epoch: "e1", seq: 3, recovered: false))
                if gap { story.add("bob", .gap(epoch: "e1", from: 2, to: 3)) }
                story.say(4, to: "bob")
            }.checked()
        }
        #expect(kinds(came(back: false)) == [.unsaid])
        #expect(came(back: true).problems.isEmpty)
        #expect(came(back: true).gaps == 1)
    }

    @Test("A recovery that claims to be whole and is not")
    func falseRecovery() {
        let verdict = story { story in
            story.say(1, to: "bob")
            story.add("bob", .disconnected(lastHeard: story.now))
            story.say(2)
            story.say(3)
            story.add("bob", .joined(epoch: "e1", seq: 3, recovered: true))
            story.say(4, to: "bob")
        }.checked()
        #expect(verdict.missing == 2)
    }

    @Test("Another epoch without a gap, and clients that end in two epochs")
    func silentEpoch() {
        let recovered = story { story in
            story.say(1, to: "bob")
            story.add("bob", .disconnected(lastHeard: story.now))
            story.add("bob", .joined(epoch: "e2", seq: 1, recovered: true))
        }.checked()
        #expect(kinds(recovered) == [.unsaid])
        let apart = story { story in
            story.say(1, to: "bob")
            story.add("ann", .gap(epoch: "e2", from: 1, to: 0))
        }.checked()
        #expect(kinds(apart) == [.unsaid])
    }

    @Test("What Redis forgot with an epoch counts as forgotten, not as missing, when a gap said it")
    func forgotten() {
        let verdict = story { story in
            story.say(1, to: "bob")
            story.say(2)
            for client in ["ann", "bob"] { story.add(client, .gap(epoch: "e2", from: 1, to: 0)) }
            story.publish("x")
            story.add("ann", .acknowledged(id: "x", seq: 1, isDuplicate: false))
            story.add("bob", .delivered(seq: 1, text: "text-x"))
        }.checked()
        #expect(verdict.problems.isEmpty, "\(verdict.problems)")
        #expect((verdict.forgotten, verdict.gaps, verdict.missing) == (1, 2, 0))
    }

    @Test("A lost ack, recovered and sent again, is no fault")
    func lostAck() {
        let verdict = story { story in
            story.say(1, to: "bob")
            story.publish("2")
            story.add("ann", .disconnected(lastHeard: story.now))
            story.add("bob", .delivered(seq: 2, text: "text-2"))
            story.add("ann", .joined(epoch: "e1", seq: 2, recovered: true))
            story.add("ann", .delivered(seq: 2, text: "text-2"))
            story.add("ann", .sent(id: "2"))
            story.add("ann", .acknowledged(id: "2", seq: 2, isDuplicate: true))
        }.checked()
        #expect(verdict.problems.isEmpty, "\(verdict.problems)")
        #expect(verdict.acknowledged == 2)
    }

    @Test("An ack for what nobody sent, and an error for good")
    func answers() {
        let verdict = story { story in
            story.add("ann", .acknowledged(id: "7", seq: 1, isDuplicate: false))
            story.publish("8")
            story.add("ann", .rejected(id: "8", code: 112))
        }.checked()
        #expect(verdict.problems.map(\.kind) == [.answer, .answer])
    }

    @Test("A publish that is never answered on a connection that lives")
    func unanswered() {
        let verdict = story { story in
            story.publish("1")
            story.now += 7000
            story.add("bob", .presence(pv: 3, left: []))
        }.checked()
        #expect(kinds(verdict) == [.answer])
        let lost = story { story in
            story.publish("1")
            story.add("ann", .disconnected(lastHeard: story.now))
            story.now += 7000
            story.add("ann", .joined(epoch: "e1", seq: 0, recovered: true))
        }.checked()
        #expect(lost.problems.isEmpty, "\(lost.problems)")
    }

    @Test("Members at the end who are not there, and who is there and not among them")
    func members() {
        let verdict = story { story in
            story.add("ann", .members(["ann", "ghost"]))
        }.checked()
        #expect(kinds(verdict) == [.presence])
        #expect(verdict.problems.first?.text.contains("ghost") == true)
    }

    @Test("A leave of who is in the room, said once however many hear it; not that of who is gone")
    func falseLeaves() {
        let verdict = story { story in
            story.join("carl", "dora")
            story.now += 5000
            for watcher in ["ann", "carl"] { story.add(watcher, .presence(pv: 9, left: ["bob"])) }
            story.add("dora", .disconnected(lastHeard: story.now - 2000))
            story.add("ann", .presence(pv: 10, left: ["dora"]))
            story.now += 100
            story.add("dora", .joined(epoch: "e1", seq: 0, recovered: true))
            story.add("carl", .presence(pv: 11, left: ["dora"]))
            story.add("ann", .delivered(seq: 1, text: "later"))
            for client in ["bob", "carl", "dora"] { story.add(client, .delivered(seq: 1, text: "later")) }
        }.checked()
        #expect(verdict.falseLeaves == 1)
        #expect(verdict.problems.isEmpty, "\(verdict.problems)")
    }

    @Test("With a grace also a leave of who is away for less than that")
    func falseLeavesInGrace() {
        let told = story { story in
            story.now += 5000
            story.add("bob", .disconnected(lastHeard: story.now))
            story.now += 3000
            story.add("ann", .presence(pv: 3, left: ["bob"]))
        }
        var circumstances = Circumstances()
        #expect(told.checked(circumstances).falseLeaves == 0)
        circumstances.grace = 2000
        #expect(told.checked(circumstances).falseLeaves == 0)
        circumstances.grace = 5000
        #expect(told.checked(circumstances).falseLeaves == 1)
    }

    @Test("The longest silence while there was load, also one that lasts to its end")
    func silence() {
        var told = story { story in
            story.say(1, to: "bob")
            story.now += 700
            story.say(2, to: "bob")
        }
        var circumstances = Circumstances()
        circumstances.load = 0...told.now
        let silence = told.checked(circumstances).longestSilence
        #expect(silence >= 700 && silence < 800, "\(silence)")
        circumstances.load = 0...(told.now + 2000)
        #expect(told.checked(circumstances).longestSilence >= 2000)
        told.now += 10
        circumstances.slow = ["ann", "bob"]
        #expect(told.checked(circumstances).longestSilence == 0)
    }

    @Test("The share that was acknowledged, outages left out, and how long an answer took")
    func share() {
        let told = story { story in
            story.say(1, to: "bob")
            story.publish("lost")
            story.publish("in the outage")
            story.now += 4000
            story.add("ann", .refused(id: "in the outage"))
        }
        #expect(told.checked().acknowledgedShare < 0.4)
        #expect(told.checked().longestAnswer >= 4000)
        var circumstances = Circumstances()
        circumstances.outages = [(told.now - 4040)...told.now]
        #expect(told.checked(circumstances).due == 1 && told.checked(circumstances).acknowledgedShare == 1)
    }
}
