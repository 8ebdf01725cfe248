import Testing

@testable import NodeServer

@Suite("What makes a node drain, stay and end")
struct DrainStateTests {
    @Test("an order is heard again and again, and obeyed once; when all have left Redis is asked, and the node ends")
    func ordered() {
        var state = DrainState()
        #expect(state.ordered() == .sendAway)
        #expect(state.ordered() == .none)
        #expect(state.left(drain: 1) == .ask)
        #expect(state.ordered() == .none)
        #expect(state.confirmed(drain: 1) == .end)
        #expect(state.confirmed(drain: 1) == .none && state.stop() == .none && state.takenBack() == .none)
    }

    @Test(
        "what is taken back is over: the node may be ordered again, and what is heard of the drain before means nothing"
    )
    func takenBack() {
        var state = DrainState()
        #expect(state.takenBack() == .none)
        #expect(state.ordered() == .sendAway)
        #expect(state.takenBack() == .takeClients)
        #expect(state.takenBack() == .none)
        #expect(state.left(drain: 1) == .none)
        #expect(state.ordered() == .sendAway)
        #expect(state.drain == 2)
        #expect(state.left(drain: 1) == .none && state.confirmed(drain: 1) == .none)
        #expect(state.left(drain: 2) == .ask)
        #expect(state.takenBack() == .takeClients, "until Redis has it that it ends")
        #expect(state.confirmed(drain: 2) == .none)
    }

    @Test("a signal is taken back by nobody")
    func stopped() {
        var state = DrainState()
        #expect(state.stop() == .sendAway)
        #expect(state.takenBack() == .none && state.ordered() == .none && state.stop() == .none)
        #expect(state.left(drain: 1) == .end)
    }

    @Test("a signal to a node that drains lets it go on with that, and end")
    func stoppedWhileDraining() {
        var state = DrainState()
        _ = state.ordered()
        #expect(state.stop() == .goOn)
        #expect(state.takenBack() == .none)
        #expect(state.left(drain: 1) == .end)

        var asking = DrainState()
        _ = (asking.ordered(), asking.left(drain: 1))
        #expect(asking.stop() == .end)
    }
}
