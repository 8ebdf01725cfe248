import Glibc
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import WebSocketTransport

@Suite("Connections given to a process of the same host")
struct HandoverTests {
    private let loop = MultiThreadedEventLoopGroup.singleton.next()
    private let address = "test \(getpid()) \(UInt64.random(in: 0...UInt64.max))"

    /// The two ends of a connection.
    private final class Pair: Sendable {
        let own: CInt
        let client: CInt

        init() throws {
            var ends: [CInt] = [0, 0]
            try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
            (own, client) = (ends[0], ends[1])
        }

        deinit {
            close(own)
            close(client)
        }
    }

    private func give(
        _ words: [String], _ pair: Pair, by sender: HandoverSender
    ) -> EventLoopFuture<[HandoverSender.Outcome]> {
        loop.flatSubmit {
            EventLoopFuture.whenAllSucceed(
                words.map { sender.give(pair.own, saying: ByteBuffer(string: $0), to: address, on: loop) }, on: loop)
        }
    }

    @Test("many are given at once; each comes with what was said, in order, and each is answered for itself")
    func inOrder() async throws {
        let heard = Mutex<[String]>([])
        let receiver = HandoverReceiver(address: address) { connection, bytes in
            let word = String(decoding: bytes, as: UTF8.self)
            heard.withLock { $0.append(word) }
            guard word != "no" else { return false }
            let written = write(connection, Array("\(word).".utf8), word.utf8.count + 1)
            close(connection)
            return written > 0
        }
        defer { receiver?.stop() }
        try #require(receiver != nil)
        let (pair, sender) = (try Pair(), HandoverSender(patience: .hours(1), pause: .hours(1)))
        let words = ["a", "no", "b", "c", "no"]
        let outcomes = try await give(words, pair, by: sender).get()
        #expect(outcomes == [.taken, .notTaken, .taken, .taken, .notTaken])
        #expect(heard.withLock(\.self) == words)
        // What the other process wrote on its copies came to the client; the own descriptor is still open.
        var bytes = [UInt8](repeating: 0, count: 16)
        let count = read(pair.client, &bytes, bytes.count)
        #expect(String(decoding: bytes.prefix(max(count, 0)), as: UTF8.self) == "a.b.c.")
        #expect(write(pair.own, "x", 1) == 1)
        #expect(sender.mayReach(address))
    }

    @Test("where nobody listens nothing is taken, and it is not tried again at once")
    func nobody() async throws {
        let (pair, sender) = (try Pair(), HandoverSender(patience: .hours(1), pause: .hours(1)))
        #expect(try await give(["a"], pair, by: sender).get() == [.notTaken])
        #expect(!sender.mayReach(address))
        #expect(sender.mayReach("another"))
        sender.keep(only: [])
        #expect(sender.mayReach(address))
    }

    @Test("of a process that does not answer in time nobody knows what it has")
    func silent() async throws {
        let listener = try #require(HandoverSocket.listen(at: address))
        defer { close(listener) }
        let (pair, sender) = (try Pair(), HandoverSender(patience: .milliseconds(20), pause: .hours(1)))
        #expect(try await give(["a", "b"], pair, by: sender).get() == [.unanswered, .unanswered])
        #expect(!sender.mayReach(address))
    }

    @Test("a process that dies before it answers has nothing; no more than 64 wait for it")
    func dead() async throws {
        let listener = try #require(HandoverSocket.listen(at: address))
        let (pair, sender) = (try Pair(), HandoverSender(patience: .hours(1), pause: .hours(1)))
        let most = HandoverSender.mostAtOnce
        let waiting = give((0..<most).map(String.init), pair, by: sender)
        #expect(try await give(["one more"], pair, by: sender).get() == [.notTaken])
        close(listener)
        #expect(try await waiting.get() == Array(repeating: .notTaken, count: most))
    }
}
