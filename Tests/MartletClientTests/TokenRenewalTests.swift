import Testing

@testable import MartletClient

/// Tokens that end, and an `auth` that is refused.
struct TokenRenewalTests {
    private var machine = ClientStateMachine(client: "c1", identity: .provider)

    private static func welcome(secret: String? = nil) -> ServerFrame {
        .welcome(.init(session: "s", user: "alice", node: "node-a", secret: secret))
    }

    private static func refusal(_ number: Int, id: String?, wait: Int64? = nil) -> ServerFrame {
        .error(.init(id: id, number: number, reason: "", message: "no", retryAfter: wait))
    }

    private func sent(_ effects: [ClientStateMachine.Effect]) -> [String] {
        effects.compactMap { if case .send(let bytes) = $0 { String(decoding: bytes, as: UTF8.self) } else { nil } }
    }

    private mutating func enter() {
        _ = machine.start(now: 0)
        _ = machine.connect(withToken: "ey.1", now: 0)
        _ = machine.opened()
        _ = machine.received(Self.welcome(secret: "z"), now: 0)
        machine.isUnmeasured = false
    }

    private func auth(_ token: String) -> String {
        #"{"type":"auth","id":"auth","token":"\#(token)","client":"c1"}"#
    }

    @Test("Told that the token ends, it asks the provider and sends the new one; the answer changes nothing else")
    mutating func renewed() {
        enter()
        _ = machine.join("r")
        #expect(
            machine.received(.tokenExpiring(milliseconds: 60_000), now: 100)
                == [.emit(.tokenExpiring(milliseconds: 60_000)), .askForRenewal])
        #expect(sent(machine.renew(withToken: "ey.2", now: 200)) == [auth("ey.2")])
        #expect(machine.received(Self.welcome(), now: 300) == [])
        #expect(machine.place == .init(session: "s", secret: "z"))
        #expect(machine.tick(now: 30_000, random: 0).contains(.askForRenewal) == false)
        #expect(machine.renewal == nil)
    }

    @Test(
        "A provider that fails, and a token that the server refuses, are tried again after 1, 2, 4 s, in the time left")
    mutating func retried() {
        enter()
        _ = machine.received(.tokenExpiring(milliseconds: 8000), now: 0)
        machine.renewalFailed(now: 0)
        #expect(!machine.tick(now: 999, random: 0).contains(.askForRenewal))
        #expect(machine.tick(now: 1000, random: 0).contains(.askForRenewal))
        #expect(!machine.tick(now: 1001, random: 0).contains(.askForRenewal))
        _ = machine.renew(withToken: "ey.2", now: 1002)
        #expect(machine.received(Self.refusal(115, id: "auth"), now: 1003) == [])
        #expect(!machine.tick(now: 3002, random: 0).contains(.askForRenewal))
        #expect(machine.tick(now: 3003, random: 0).contains(.askForRenewal))
        machine.renewalFailed(now: 3003)
        #expect(machine.tick(now: 7003, random: 0).contains(.askForRenewal))
        machine.renewalFailed(now: 7003)
        #expect(machine.renewal == nil, "the time is over before the next attempt")
    }

    @Test("An ended token is a loss: the provider gives the next, and the session goes on with it")
    mutating func ended() {
        enter()
        _ = machine.received(.tokenExpiring(milliseconds: 8000), now: 0)
        let lost = machine.lost(code: 4003, reason: "token expired", now: 38_000, random: 0.5)
        #expect(lost.last == .connectLater(milliseconds: 500))
        #expect(machine.renew(withToken: "ey.late", now: 38_001) == [])
        #expect(machine.retry(now: 38_500).last == .askForToken)
        _ = machine.connect(withToken: "ey.2", now: 38_501)
        #expect(sent(machine.opened()).first?.contains(#""token":"ey.2""#) == true)
    }

    @Test("A fixed token is not renewed; refused at the next connect it ends the client")
    mutating func fixed() {
        machine = ClientStateMachine(client: "c1", identity: .token("ey.x"))
        _ = machine.start(now: 0)
        _ = machine.opened()
        _ = machine.received(Self.welcome(), now: 0)
        #expect(
            machine.received(.tokenExpiring(milliseconds: 5), now: 1) == [.emit(.tokenExpiring(milliseconds: 5))])
        _ = machine.lost(code: 4003, reason: "token expired", now: 2, random: 0)
        _ = machine.retry(now: 3)
        _ = machine.opened()
        #expect(
            machine.received(Self.refusal(115, id: "auth"), now: 4).last
                == .emit(.state(.closed(code: 4201, reason: "no"))))
    }

    @Test("A token that cannot be judged now, or was not understood, is one more attempt, whatever comes behind it")
    mutating func notJudged() {
        for (number, wait) in [(102, nil), (113, 1500)] as [(Int, Int64?)] {
            machine = ClientStateMachine(client: "c1", identity: .token("ey.x"))
            _ = machine.start(now: 0)
            _ = machine.opened()
            #expect(machine.received(Self.refusal(106, id: nil), now: 1) == [])
            #expect(
                machine.received(Self.refusal(number, id: "auth", wait: wait), now: 1)
                    == [.giveUp(reason: "no", wait: wait ?? 0)])
            #expect(machine.phase != .closed)
        }
    }

    @Test(
        "A room of a namespace that is not there, or that is forbidden, is refused once; messages there are not repeated",
        arguments: [116, 119])
    mutating func refusedRoom(_ number: Int) {
        enter()
        _ = machine.join("x:1")
        _ = machine.publish(Outbox.Entry(id: "m", to: .room("x:1"), text: "hi", data: nil), now: 1)
        let refusal = ServerFrame.Refusal(id: "join-1", room: "x:1", number: number, reason: "", message: "no")
        let effects = machine.received(.error(refusal), now: 2)
        let error = MartletError(.refused, "no", number: number)
        #expect(
            effects == [
                .answerJoin(room: "x:1", .failure(error)), .acknowledge(id: "m", .failure(error)),
            ])
        #expect(sent(machine.tick(now: 60_000, random: 0)).allSatisfy { !$0.contains("x:1") })
    }
}
