import Testing

@testable import MartletClient

/// Private messages: sent, missed and taken up again.
struct ClientDirectsTests {
    private typealias Effect = ClientStateMachine.Effect

    private var machine = ClientStateMachine(client: "c1", identity: .user("alice"))

    private static func welcome(beganAt: Int64?) -> ServerFrame {
        .welcome(.init(session: "s", user: "alice", node: "n", secret: nil, beganAt: beganAt))
    }

    private static func message(_ seq: Int64, of peer: String, epoch: String = "e") -> ServerFrame {
        .message(
            ChatMessage(
                room: "dm:alice:\(peer)", seq: seq, from: peer, to: "alice", text: "\(seq)", timestamp: 0, isOwn: false,
                tag: "t", epoch: epoch))
    }

    private func sent(_ effects: [Effect]) -> [String] {
        effects.compactMap { if case .send(let bytes) = $0 { String(decoding: bytes, as: UTF8.self) } else { nil } }
    }

    /// The messages by `seq`, and where gaps end as negative numbers.
    private mutating func seqs(_ frames: ServerFrame..., now: Int64 = 1) -> [Int64] {
        frames.flatMap { machine.received($0, now: now) }.compactMap { effect in
            switch effect {
            case .emit(.message(let message)): message.seq
            case .emit(.gap(_, _, let to)): -to
            default: nil
            }
        }
    }

    private mutating func enter(beganAt: Int64? = 77) {
        _ = machine.start(now: 0)
        _ = machine.opened()
        _ = machine.received(Self.welcome(beganAt: beganAt), now: 0)
    }

    private mutating func comeBack(at now: Int64 = 10) -> [String] {
        _ = machine.lost(code: 1006, reason: "", now: now, random: 0)
        #expect(machine.retry(now: now).last == .connect(resuming: true))
        return sent(machine.opened())
    }

    @Test(
        "Who comes back says since when it is to have private messages, and what it has of them, also without a session"
    )
    mutating func introduction() {
        enter()
        #expect(seqs(Self.message(4, of: "bob")) == [4])
        #expect(seqs(Self.message(9, of: "carl"), now: 2) == [9])
        func place(_ peer: String, _ seq: Int64) -> String {
            #"{"room":"dm:alice:\#(peer)","since":{"epoch":"e","seq":\#(seq),"tag":"t"}}"#
        }
        let who = #"{"type":"auth","id":"join-1","user":"alice","client":"c1","status":"online","#
        let rooms = "[\(place("carl", 9)),\(place("bob", 4))]"
        #expect(comeBack() == [who + #""directs":{"since":77,"rooms":\#(rooms)}}"#])
        #expect(sent(machine.received(Self.welcome(beganAt: 99), now: 11)) == [])
        #expect(machine.beganAt == 77, "what began in an earlier session was not heard of either")
    }

    @Test("Each once and in order; of another epoch a gap first; what the server says is missing is a gap")
    mutating func order() {
        enter()
        #expect(seqs(Self.message(4, of: "bob"), Self.message(6, of: "bob"), Self.message(4, of: "bob")) == [4])
        #expect(seqs(Self.message(5, of: "bob")) == [5, 6])
        #expect(seqs(Self.message(2, of: "bob", epoch: "f"), Self.message(3, of: "bob", epoch: "f")) == [-1, 2, 3])
        #expect(
            seqs(.gap(room: "dm:alice:bob", epoch: "f", from: 4, to: 8), Self.message(9, of: "bob", epoch: "f")) == [
                -8, 9,
            ])
        #expect(seqs(.gap(room: "dm:alice:new", epoch: "e", from: 1, to: 2), Self.message(3, of: "new")) == [-2, 3])
    }

    @Test("What does not come is read from the history")
    mutating func hole() {
        enter()
        #expect(seqs(Self.message(1, of: "bob"), Self.message(3, of: "bob")) == [1])
        let asked = sent(machine.tick(now: 1500, random: 0)).filter { $0.contains("history") }
        #expect(asked == [#"{"type":"history","id":"fill-1","room":"dm:alice:bob","after":1,"limit":100}"#])
        guard case .message(let missing) = Self.message(2, of: "bob") else { return }
        let page = ServerFrame.History(room: "dm:alice:bob", epoch: "e", messages: [missing], hasMore: false)
        #expect(seqs(.history(id: "fill-1", page), now: 1600) == [2, 3])
    }

    @Test("A private message needs no join, is sent again under its id, and its ack places it")
    mutating func sending() {
        enter()
        let entry = Outbox.Entry(id: "p1", to: .user("bob"), text: "psst", data: nil)
        let frame = #"{"type":"direct","id":"p1","to":"bob","text":"psst"}"#
        #expect(sent(machine.publish(entry, now: 1)) == [frame])
        #expect(comeBack().count == 1)
        #expect(sent(machine.received(Self.welcome(beganAt: nil), now: 11)) == [frame])
        let ack = ServerFrame.Ack(id: "p1", room: "dm:alice:bob", epoch: "e", seq: 3, timestamp: 9, tag: "t")
        let effects = machine.received(.ack(ack), now: 13)
        #expect(effects.first == .acknowledge(id: "p1", .success(Acknowledgement(seq: 3, timestamp: 9))))
        guard case .emit(.message(let message)) = effects.last else {
            Issue.record("no message in \(effects)")
            return
        }
        #expect(message.room == "dm:alice:bob" && message.to == "bob" && message.text == "psst" && message.isOwn)
        #expect(seqs(Self.message(4, of: "bob")) == [4])
    }

    @Test(
        "A presence set between the first frame and its welcome is said behind that: before, it would confirm a secret")
    mutating func presence() {
        enter()
        _ = comeBack()
        #expect(machine.setPresence(.away) == [])
        #expect(sent(machine.received(Self.welcome(beganAt: nil), now: 11)) == [#"{"type":"status","status":"away"}"#])
    }

    @Test("A server that cannot take the rooms in the first frame is told of private ones alone")
    mutating func refused() {
        enter()
        _ = comeBack()
        let refusal = ServerFrame.Refusal(id: "join-1", number: 110, reason: "too_many_rooms", message: "no")
        #expect(machine.received(.error(refusal), now: 11).last == .connect(resuming: true))
        #expect(sent(machine.opened()).first?.hasSuffix(#""directs":{"since":77}}"#) == true)
    }

    @Test("The wait that a server asks for is the least, and chance comes on top")
    mutating func retryAfter() {
        _ = machine.start(now: 0)
        let lost = machine.lost(code: 1006, reason: "503", now: 1, random: 0.5, wait: 3000)
        #expect(lost.last == .connectLater(milliseconds: 3500))
    }
}
