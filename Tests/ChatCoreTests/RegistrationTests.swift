import ChatCore
import Testing

private typealias Entry = Registration<String, Int>

/// What the node wants, what Redis is told, and what comes back. Requests are numbers.
@Suite("G4: what is wanted and what Redis holds become one, whatever is lost between them")
struct RegistrationTests {
    private func joined() -> Entry {
        var entry = Entry(wanting: "online")
        entry.want("online", 1)
        #expect(entry.next() == .write("online", attempt: 1))
        #expect(entry.wrote(1) == [1])
        return entry
    }

    @Test("a join is written once, and its request answered once")
    func join() {
        var entry = Entry(wanting: "online")
        entry.want("online", 1)
        #expect(entry.next() == .write("online", attempt: 1))
        #expect(entry.next() == .none)
        #expect(entry.wrote(1) == [1])
        #expect(entry.isEstablished && entry.isSettled)
        #expect(entry.next() == .none)
    }

    @Test("a leave while the join is under way goes out behind it")
    func leaveBehindJoin() {
        var entry = Entry(wanting: "online")
        entry.want("online", 1)
        #expect(entry.next() == .write("online", attempt: 1))
        #expect(entry.wantNothing() == [1])
        #expect(entry.next() == .none)
        #expect(entry.wrote(1) == [])
        #expect(!entry.isEstablished)
        #expect(entry.next() == .remove(attempt: 2))
        entry.removed(2)
        #expect(entry.next() == .forget)
    }

    @Test("a leave before the join was sent sends nothing")
    func neverSent() {
        var entry = Entry(wanting: "online")
        entry.want("online", 1)
        #expect(entry.wantNothing() == [1])
        #expect(entry.next() == .forget)
    }

    @Test("join, leave, join: the last wish wins, and its request is answered")
    func joinLeaveJoin() {
        var entry = Entry(wanting: "online")
        entry.want("online", 1)
        #expect(entry.next() == .write("online", attempt: 1))
        _ = entry.wantNothing()
        entry.want("online", 2)
        #expect(entry.wrote(1) == [])
        #expect(entry.next() == .write("online", attempt: 2))
        #expect(entry.wrote(2) == [2])
    }

    @Test("two joins of one session are both answered, each once")
    func twoJoins() {
        var entry = Entry(wanting: "online")
        entry.want("online", 1)
        #expect(entry.next() == .write("online", attempt: 1))
        entry.want("online", 2)
        #expect(entry.writeFailed(1, outcomeIsUnknown: true) == [1])
        #expect(entry.next() == .write("online", attempt: 2))
        #expect(entry.wrote(2) == [2])
    }

    @Test("a first join that timed out may have been done all the same: it is removed")
    func lostJoin() {
        var entry = Entry(wanting: "online")
        entry.want("online", 1)
        #expect(entry.next() == .write("online", attempt: 1))
        #expect(entry.writeFailed(1, outcomeIsUnknown: true) == [1])
        #expect(entry.wanted == nil)
        #expect(entry.next() == .remove(attempt: 2))
        entry.removeFailed(2)
        #expect(entry.next() == .remove(attempt: 3))
        entry.removed(3)
        #expect(entry.next() == .forget)
    }

    @Test("a first join that was surely not done leaves nothing to remove")
    func refusedJoin() {
        var entry = Entry(wanting: "online")
        entry.want("online", 1)
        #expect(entry.next() == .write("online", attempt: 1))
        #expect(entry.writeFailed(1, outcomeIsUnknown: false) == [1])
        #expect(entry.next() == .forget)
    }

    @Test("who is in stays in when joining again fails")
    func againFails() {
        var entry = joined()
        entry.want("online", 2)
        #expect(entry.next() == .write("online", attempt: 2))
        #expect(entry.writeFailed(2, outcomeIsUnknown: true) == [2])
        #expect(entry.isEstablished)
        #expect(entry.next() == .write("online", attempt: 3))
        #expect(entry.wrote(3) == [])
        #expect(entry.isSettled)
    }

    @Test("a status that could not be written is written later")
    func status() {
        var entry = joined()
        entry.want("away")
        #expect(entry.next() == .update("away", attempt: 2))
        #expect(entry.writeFailed(2, outcomeIsUnknown: true).isEmpty)
        #expect(!entry.isSettled)
        #expect(entry.next() == .write("away", attempt: 3))
        #expect(entry.wrote(3) == [])
        #expect(entry.isSettled)
    }

    @Test("a status that changes while the last change is under way follows it")
    func quickStatus() {
        var entry = joined()
        entry.want("away")
        #expect(entry.next() == .update("away", attempt: 2))
        entry.want("busy")
        #expect(entry.wrote(2) == [])
        #expect(entry.next() == .update("busy", attempt: 3))
    }

    @Test("a new owner writes everything again, and a late answer to the old one answers nobody")
    func newOwner() {
        var entry = joined()
        entry.want("online", 2)
        #expect(entry.next() == .write("online", attempt: 2))
        entry.beginAnew()
        #expect(entry.wrote(2) == nil)
        #expect(entry.next() == .write("online", attempt: 4))
        #expect(entry.wrote(4) == [2])
    }

    @Test("a dead owner's join waits for the new one")
    func fenced() {
        var entry = Entry(wanting: "online")
        entry.want("online", 1)
        #expect(entry.next() == .write("online", attempt: 1))
        entry.refused(1)
        entry.beginAnew()
        #expect(entry.next() == .write("online", attempt: 3))
        #expect(entry.wrote(3) == [1])
    }

    @Test("requests that waited too long are handed back; one that is under way is answered by its command")
    func expiry() {
        var entry = Entry(wanting: "online")
        entry.want("online", 1)
        #expect(entry.expire { $0 == 1 } == [1])
        #expect(entry.next() == .forget)

        var other = Entry(wanting: "online")
        other.want("online", 1)
        #expect(other.next() == .write("online", attempt: 1))
        other.want("online", 2)
        #expect(other.expire { _ in true } == [2])
        #expect(other.wrote(1) == [1])
    }

    @Test("what Redis holds though nobody is there is removed; what it lost is written again")
    func found() {
        var stray = Entry(stray: ())
        #expect(stray.next() == .remove(attempt: 1))
        stray.removed(1)
        #expect(stray.next() == .forget)

        var lost = joined()
        lost.found(true)
        #expect(lost.isSettled)
        lost.found(false)
        #expect(lost.next() == .write("online", attempt: 2))
    }

    @Test("another may have it since: what stood is written again, also behind a command that is under way")
    func doubted() {
        var entry = joined()
        entry.doubt()
        #expect(entry.isEstablished && !entry.isSettled)
        #expect(entry.next() == .write("online", attempt: 2))
        entry.doubt()
        #expect(entry.wrote(2) == [])
        #expect(entry.next() == .write("online", attempt: 3))
        #expect(entry.wrote(3) == [])
        #expect(entry.isSettled)
        var gone = joined()
        _ = gone.wantNothing()
        gone.doubt()
        #expect(gone.next() == .remove(attempt: 2), "what is to be removed is")
    }
}

@Suite("G3: a stored publish is answered, whatever the relay does")
struct OwedAcksTests {
    @Test("what the relay brought owes nothing")
    func delivered() {
        var owed = OwedAcks<String>()
        owed.add("b", seq: 6, now: 10, deadline: 50)
        owed.add("a", seq: 5, now: 10, deadline: 50)
        #expect(owed.highestSeq == 6)
        #expect(owed.take(through: 5).map(\.publish) == ["a"])
        #expect(owed.takeAll().map(\.publish) == ["b"])
        #expect(owed.isEmpty)
    }

    @Test("of two who wait for one private room each takes what is theirs")
    func filtered() {
        var owed = OwedAcks<String>()
        for (seq, name) in [(Int64(1), "a"), (2, "b"), (3, "a")] { owed.add(name, seq: seq, now: 0, deadline: 50) }
        #expect(owed.take(through: 3) { $0 == "a" }.map(\.seq) == [1, 3])
        #expect(owed.takeAll().map(\.seq) == [2])
    }

    @Test("what a gap swallowed is handed back")
    func swallowed() {
        var owed = OwedAcks<String>()
        for seq in Int64(1)...4 { owed.add("m\(seq)", seq: seq, now: 0, deadline: 50) }
        #expect(owed.take(through: 3).map(\.publish) == ["m1", "m2", "m3"])
        #expect(owed.highestSeq == 4)
    }

    @Test("what is owed for too long is told")
    func overdue() {
        var owed = OwedAcks<String>()
        owed.add("old", seq: 1, now: 10, deadline: 50)
        owed.add("new", seq: 2, now: 20, deadline: 60)
        #expect(owed.overdue(since: 9) == nil && owed.overdue(since: 10) != nil)
        #expect(owed.takeOverdue(now: 49).isEmpty)
        #expect(owed.takeOverdue(now: 50).map(\.publish) == ["old"])
        #expect(owed.take(through: 2).map(\.publish) == ["new"])
        #expect(owed.isEmpty)
    }
}
