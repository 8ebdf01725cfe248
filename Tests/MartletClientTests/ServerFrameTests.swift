import Testing
import WireProtocol

@testable import MartletClient

struct ServerFrameTests {
    private func decode(_ text: String) -> ServerFrame? { ServerFrame(decoding: Array(text.utf8)) }

    @Test("What a server encodes is what a client reads")
    func roundTrip() throws {
        let session = SessionID()
        let room = try RoomName(validating: "general")
        let bob = try UserName(validating: "bob")
        let welcome = ServerMessage.Welcome(
            session: session, user: bob, node: "n", heartbeatMilliseconds: 1, messageLimitBytes: 2,
            messagesPerSecond: 3, roomLimit: 4)
        #expect(
            ServerFrame(decoding: ServerMessage.welcome(welcome, id: nil))
                == .welcome(
                    .init(
                        session: session.string, user: "bob", node: "n",
                        limits: .init(messageBytes: 2, messagesPerSecond: 3))))
        var resumed = welcome
        resumed.secret = "Q9"
        resumed.isResumed = true
        guard case .welcome(let back)? = ServerFrame(decoding: ServerMessage.welcome(resumed, id: nil)) else {
            Issue.record("no welcome")
            return
        }
        #expect(back.secret == "Q9" && back.isResumed)
        #expect(
            ServerFrame(decoding: ServerMessage.left(room: room, id: "l"))
                == .left(
                    room: "general", id: "l", reason: nil))
        let members = [#"{"user":"bob"}"#, #"{"user":"zoë","status":"away","info":{"a":1}}"#]
        #expect(
            ServerFrame(
                decoding: ServerMessage.joined(
                    room: room, id: "1", epoch: "e", seq: 4, tag: "x7Qa", recovered: true,
                    present: (2, members, 9)))
                == .joined(
                    .init(
                        room: "general", epoch: "e", seq: 4, tag: "x7Qa", recovered: true,
                        roster: .init(
                            members: [
                                Member(user: "bob", status: "online"),
                                Member(user: "zoë", status: "away", info: #"{"a":1}"#),
                            ], count: 2, pv: 9))))
        #expect(
            ServerFrame(decoding: ServerMessage.ack(room: room, id: "p", seq: 1, ts: 2, tag: "t", epoch: "e"))
                == .ack(.init(id: "p", room: "general", seq: 1, timestamp: 2, tag: "t")))
        #expect(
            ServerFrame(decoding: ServerMessage.gap(room: room, epoch: "e", from: 3, to: 5))
                == .gap(room: "general", epoch: "e", from: 3, to: 5))
        let body = Array(#""from":"bob","text":"hi \u00e9\n","data":{"k": [1, 2]},"binary":"AP8=""#.utf8)
        let message = ChatMessage(
            room: "general", seq: 7, from: "bob", text: "hi é\n", data: #"{"k":[1,2]}"#, binary: [0, 255], timestamp: 8,
            isOwn: false, id: "p", tag: "t")
        #expect(
            ServerFrame(
                decoding: MessageText.frame(room: room, epoch: "e", seq: 7, tag: "t", body: body, ts: 8, rawID: "p"))
                == .message(message))
        let element = MessageText.element(seq: 7, tag: "t", body: body, ts: 8, rawID: "p")
        #expect(
            ServerFrame(
                decoding: ServerMessage.history(room: room, id: "h", epoch: "e", messages: [element], more: true))
                == .history(id: "h", .init(room: "general", epoch: "e", messages: [message], hasMore: true)))
        #expect(
            ServerFrame(
                decoding: ServerMessage.presence(
                    room: room, joined: [members[0]], left: [#"{"user":"x"}"#], updated: [], count: 1, pv: 3))
                == .membersChanged(
                    room: "general",
                    .init(joined: [Member(user: "bob", status: "online")], left: ["x"], count: 1, pv: 3)))
        #expect(
            ServerFrame(decoding: ServerMessage.typing(room: room, from: bob, isTyping: false))
                == .typing(room: "general", user: "bob", isTyping: false))
        #expect(
            ServerFrame(
                decoding: ServerMessage.error(WireError(.rateLimited, "w", retryAfterMilliseconds: 4), id: "p"))
                == .error(
                    .init(id: "p", room: nil, number: 103, reason: "rate_limited", message: "w", retryAfter: 4)))
        #expect(
            ServerFrame(decoding: ServerMessage.reconnect(delayMilliseconds: 5, reason: "draining"))
                == .reconnect)
        #expect(
            ServerFrame(decoding: Array(#"{"type":"token_expiring","expires_in_ms":59400}"#.utf8))
                == .tokenExpiring(milliseconds: 59_400))
    }

    @Test("Every frame that this client sends is one that the server reads")
    func clientFrames() throws {
        let frames = [
            ClientFrame.auth(token: "t", client: "c", id: "auth"),
            ClientFrame.join([("a", nil), ("b", .init(epoch: "e", seq: 3, tag: "t"))], id: "join-1"),
            ClientFrame.leave("a", id: "leave-1"),
            ClientFrame.message(to: .room("a"), text: "hi \"\n", data: "[1]", id: "1"),
            ClientFrame.typing("a", isTyping: true), ClientFrame.presence("a"), ClientFrame.status("away"),
            ClientFrame.history("a", before: 4, after: nil, limit: 100, id: "2"), ClientFrame.ping(),
        ]
        for frame in frames {
            #expect(throws: Never.self) { try frame.withUnsafeBytes { try ClientMessage(decoding: $0) } }
        }
    }

    @Test(
        "What is no frame is nothing, and unknown types are let pass",
        arguments: ["", "[]", "{}", #"{"type":1}"#, #"{"type":"joined"}"#])
    func noFrame(text: String) {
        #expect(decode(text) == nil)
        #expect(decode(#"{"type":"read","room":"a"}"#) == .other)
    }

    @Test(
        "A number that no server says makes no frame, so that no sum of one can overflow",
        arguments: [
            #"{"type":"gap","room":"r","to":9223372036854775807}"#, #"{"type":"gap","room":"r","to":-1}"#,
            #"{"type":"joined","room":"r","epoch":"e","seq":9007199254740993}"#,
            #"{"type":"message","room":"r","seq":9223372036854775807,"from":"b","ts":1}"#,
            #"{"type":"error","code":103,"reason":"rate_limited","retry_ms":3600001}"#,
        ])
    func absurdNumbers(text: String) {
        #expect(decode(text) == nil)
    }

    @Test("An absurd number that a frame can do without is as none")
    func absurdOptionalNumbers() {
        let text = #"{"type":"presence","room":"r","joined":[],"left":[],"count":-9223372036854775808,"pv":1e30}"#
        #expect(decode(text) == .membersChanged(room: "r", .init(count: 0, pv: 0)))
        #expect(decode(#"{"type":"reconnect","delay_ms":9223372036854775807}"#) == .reconnect)
    }

    @Test("Data and info nested as deep as a client may send them are read, also in lists")
    func deepest() throws {
        let brackets = JSONScanner.maximumDepth - 1
        let deep = String(repeating: "[", count: brackets) + String(repeating: "]", count: brackets)
        let sent = Array(#"{"type":"message","room":"general","data":\#(deep)}"#.utf8)
        let body = try sent.withUnsafeBytes { bytes in
            guard case .message(_, let payload) = try ClientMessage(decoding: bytes).body else { return [UInt8]() }
            return MessageText.body(from: try UserName(validating: "bob"), payload: payload, in: bytes)
        }
        let room = try RoomName(validating: "general")
        let element = MessageText.element(seq: 7, tag: "t", body: body, ts: 8, rawID: "")
        let history = ServerMessage.history(room: room, id: nil, epoch: "e", messages: [element], more: false)
        guard case .history(_, let read)? = ServerFrame(decoding: history) else { Issue.record("no history"); return }
        #expect(read.messages.map(\.data) == [deep])

        let info = #"{"a":\#(deep.dropFirst().dropLast())}"#
        let auth = Array(#"{"type":"auth","info":\#(info)}"#.utf8)
        _ = try auth.withUnsafeBytes { try ClientMessage(decoding: $0) }
        let presence = ServerMessage.presence(
            room: room, id: nil, members: [#"{"user":"bob","info":\#(info)}"#], count: 1, pv: 1)
        #expect(ServerFrame(decoding: presence) != nil)
    }

    @Test("A lone surrogate becomes a replacement character and harms nothing else")
    func loneSurrogate() {
        let text =
            #"{"type":"message","room":"r","seq":1,"from":"b","text":"a\ud800b\udc00 \ud83d\ude00 \\ud800","ts":1}"#
        guard case .message(let message)? = decode(text) else { Issue.record("no message"); return }
        #expect(message.text == "a\u{fffd}b\u{fffd} 😀 \\ud800")
    }
}

struct MartletClientTests {
    @Test(
        "An address that this client cannot use is refused at once",
        arguments: ["https://h/ws", "http://h", "ws://h/#a"])
    func address(url: String) {
        #expect(throws: MartletError.self) { try MartletClient(url: url, credential: .user("a")) }
    }
}
