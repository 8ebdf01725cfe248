import TestSupport
import Testing

/// What `data` is on its way through a node, Redis and another node. (That others are refused is shown of the codec.)
@Suite("JSON on its way")
struct JSONPassageTests {
    /// All that a node takes. White space around a value is not part of it.
    private static let values = (JSONTestCase.accepted + JSONTestCase.either)
        .filter { $0.isUTF8 && !$0.name.hasPrefix("i_structure") }
        .map { String(decoding: $0.bytes, as: UTF8.self).trimming { $0.isWhitespace } }

    @Test("each JSON text that may be sent reaches members on another node, and readers of history, byte for byte")
    func byteForByte() async throws {
        #expect(Self.values.count == 115)
        let options = Cluster.Options(
            nodes: 2,
            environment: ["MARTLET_LIMIT_MESSAGES_PER_SECOND": "1000", "MARTLET_LIMIT_MESSAGES_BURST": "1000"]
        )
        try await Machine.with(options) { cluster in
            let room = newRoom()
            let (live, stored) = (Watched<[String]>([]), Watched<[String]>([]))
            var listening = TestClient.Options()
            listening.tapText = { text in
                let text = String(decoding: text, as: UTF8.self)
                guard text.contains(#""data":"#) else { return false }
                (text.hasPrefix(#"{"type":"message""#) ? live : stored).update { $0.append(text) }
                return true
            }
            let alice = try await cluster.connect(newUser(), to: 0)
            let bob = try await cluster.connect(newUser(), to: 1, options: listening)
            for session in [alice, bob] { try await session.join(room) }
            for (index, value) in Self.values.enumerated() {
                alice.client.send(text: #"{"type":"message","room":"\#(room)","id":"\#(index)","data": \#(value) }"#)
            }
            let heard = try await live.wait(within: .seconds(20), "all messages") {
                $0.count == Self.values.count ? $0 : nil
            }
            for (text, value) in zip(heard, Self.values) {
                #expect(text.contains(#""from":"\#(alice.user)","data":\#(value),"ts":"#))
            }
            bob.client.send(["type": "history", "room": .string(room), "limit": 100])
            let history = try await stored.wait(within: .seconds(10), "the history") { $0.first }
            for value in Self.values.suffix(100) {
                #expect(history.contains(#""from":"\#(alice.user)","data":\#(value),"ts":"#))
            }
        }
    }
}

extension String {
    fileprivate func trimming(_ isTrimmed: (Character) -> Bool) -> String {
        let kept = drop(while: isTrimmed)
        return String(kept.dropLast(kept.reversed().prefix(while: isTrimmed).count))
    }
}
