import CLinux
import Dispatch
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

    /// - Parameter next: done before the loop may see an answer, or that the time is over.
    private func give(
        _ words: [String], _ pair: Pair, by sender: HandoverSender, next: @escaping @Sendable () -> Void = {}
    ) -> EventLoopFuture<[HandoverSender.Outcome]> {
        loop.flatSubmit {
            defer { next() }
            return EventLoopFuture.whenAllSucceed(
                words.map { sender.give(pair.own, saying: ByteBuffer(string: $0), to: address, on: loop) }, on: loop)
        }
    }

    /// A node's ends of what a router that waits at the listener has opened.
    private struct Ends {
        let socket: CInt
        private(set) var queue: CInt = -1

        init(at listener: CInt) {
            socket = accept4(listener, nil, nil, Int32(SOCK_CLOEXEC.rawValue))
            var byte: UInt8 = 0
            _ = receive_with_descriptor(socket, &byte, 1, &queue)
        }

        func close() {
            Glibc.close(socket)
            Glibc.close(queue)
        }

        /// nil where there is nothing.
        func receive() -> (word: String, connection: CInt)? {
            var buffer = [UInt8](repeating: 0, count: 1024)
            var connection: CInt = -1
            let count = receive_with_descriptor(queue, &buffer, buffer.count, &connection)
            guard count > 0 else { return nil }
            return (String(decoding: HandoverQueue.content(buffer[..<count]), as: UTF8.self), connection)
        }
    }

    @Test("many are given at once; each comes with what was said, in order, and each is answered for itself")
    func inOrder() async throws {
        let heard = Mutex<[String]>([])
        let receiver = HandoverReceiver(address: address) { bytes in
            let word = String(decoding: bytes, as: UTF8.self)
            heard.withLock { $0.append(word) }
            guard word != "no" else { return nil }
            return { connection in
                #expect(write(connection, Array("\(word).".utf8), word.utf8.count + 1) > 0)
                close(connection)
            }
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
        #expect(sender.mayReach(address, on: loop))
    }

    @Test("where nobody listens nothing is taken, and it is not tried again at once")
    func nobody() async throws {
        let (pair, sender) = (try Pair(), HandoverSender(patience: .hours(1), pause: .hours(1)))
        #expect(try await give(["a"], pair, by: sender).get() == [.notTaken])
        #expect(!sender.mayReach(address, on: loop))
        #expect(sender.mayReach("another", on: loop))
        sender.keep(only: [])
        #expect(sender.mayReach(address, on: loop))
    }

    /// Else the router may read what the client says to a `101`: NIO reads to the end when a client ends its direction.
    @Test("one that is taken is not served before the giver can have the answer")
    func answeredFirst() async throws {
        let told = DispatchSemaphore(value: 0)
        let wasTold = loop.makePromise(of: Bool.self)
        let receiver = HandoverReceiver(address: address) { _ in
            { connection in
                wasTold.succeed(told.wait(timeout: .now() + 20) == .success)
                close(connection)
            }
        }
        try #require(receiver != nil)
        defer { receiver?.stop() }
        let (pair, sender) = (try Pair(), HandoverSender(patience: .hours(1), pause: .hours(1)))
        #expect(try await give(["a"], pair, by: sender).get() == [.taken])
        told.signal()
        #expect(try await wasTold.futureResult.get())
    }

    @Test("a loop too many is refused for itself: it does without for a while, and the others go on")
    func tooManyLines() async throws {
        let said = Mutex<[Int]>([])
        let receiver = HandoverReceiver(
            address: address, mostLines: 1, refused: { most in said.withLock { $0.append(most) } }
        ) { _ in { close($0) } }
        try #require(receiver != nil)
        defer { receiver?.stop() }
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        let (first, second) = (group.next(), group.next())
        let (pair, sender) = (try Pair(), HandoverSender(patience: .hours(1), pause: .hours(1)))
        func give(on loop: any EventLoop) async throws -> HandoverSender.Outcome {
            let address = address
            return try await loop.flatSubmit {
                sender.give(pair.own, saying: ByteBuffer(string: "a"), to: address, on: loop)
            }.get()
        }
        #expect(try await give(on: first) == .taken)
        #expect(try await give(on: second) == .notTaken)
        #expect(said.withLock(\.self) == [1])
        #expect(sender.mayReach(address, on: first) && !sender.mayReach(address, on: second))
        #expect(try await give(on: first) == .taken)
        sender.keep(only: [])
        #expect(sender.mayReach(address, on: second))
        try await group.shutdownGracefully()
    }

    @Test("what a process does not receive in time is taken back: it finds nothing when it wakes up")
    func silent() async throws {
        let listener = try #require(HandoverSocket.listen(at: address))
        let (pair, sender) = (try Pair(), HandoverSender(patience: .milliseconds(20), pause: .hours(1)))
        #expect(try await give(["a", "b"], pair, by: sender).get() == [.takenBack, .takenBack])
        #expect(!sender.mayReach(address, on: loop))
        #expect(write(pair.own, "x", 1) == 1)
        let ends = Ends(at: listener)
        defer { ends.close() }
        #expect(ends.queue >= 0 && ends.receive() == nil)
        close(listener)
    }

    @Test("what it has received when the time is over is its own, and what it has not is the giver's")
    func half() async throws {
        let listener = try #require(HandoverSocket.listen(at: address))
        let (pair, sender) = (try Pair(), HandoverSender(patience: .milliseconds(20), pause: .hours(1)))
        let received = Mutex<(ends: Ends, word: String, connection: CInt)?>(nil)
        let outcomes = give(["a", "b", "c"], pair, by: sender) {
            let ends = Ends(at: listener)
            if let (word, connection) = ends.receive() { received.withLock { $0 = (ends, word, connection) } }
        }
        #expect(try await outcomes.get() == [.unanswered, .takenBack, .takenBack])
        let first = received.withLock { $0 }
        let (ends, word, connection) = try #require(first)
        #expect(word == "a" && ends.receive() == nil)
        #expect(write(connection, "x", 1) == 1)
        close(connection)
        ends.close()
        close(listener)
    }

    @Test("one that was received late is served, and what was behind it is not")
    func late() async throws {
        let (held, free) = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
        let heard = Mutex<[String]>([])
        let written = Mutex(0)
        let receiver = HandoverReceiver(address: address) { bytes in
            heard.withLock { $0.append(String(decoding: bytes, as: UTF8.self)) }
            held.signal()
            free.wait()
            guard bytes != Array("no".utf8) else { return nil }
            return { connection in
                written.withLock { $0 += write(connection, "x", 1) }
                close(connection)
            }
        }
        defer { receiver?.stop() }
        try #require(receiver != nil)
        let (pair, sender) = (try Pair(), HandoverSender(patience: .milliseconds(20), pause: .hours(1)))
        let outcomes = give(["a", "b"], pair, by: sender) { held.wait() }
        #expect(try await outcomes.get() == [.unanswered, .takenBack])
        for _ in 0..<3 { free.signal() }
        // It goes on, with whoever comes next; what is answered behind another comes after that was served.
        let another = HandoverSender(patience: .hours(1), pause: .hours(1))
        #expect(try await give(["c", "no"], pair, by: another).get() == [.taken, .notTaken])
        #expect(heard.withLock(\.self) == ["a", "c", "no"] && written.withLock(\.self) == 2)
    }

    @Test("both ends may receive at the same moment: each message is that of one of them")
    func race() async throws {
        let pair = try Pair()
        let numbers = Set((0..<64).map { UInt64($0) })
        for _ in 0..<200 {
            let queue = try #require(HandoverQueue())
            for number in numbers.sorted() { try #require(queue.put(pair.own, saying: [], number: number)) }
            async let other = queue.takeBack()
            let own = queue.takeBack()
            let theirs = await other
            #expect(own.isDisjoint(with: theirs) && own.union(theirs) == numbers)
            queue.close()
        }
    }

    @Test("a message whose descriptor found no room is answered, and those behind it are served")
    func noRoom() async throws {
        let receiver = HandoverReceiver(address: address) { _ in { close($0) } }
        try #require(receiver != nil)
        defer { receiver?.stop() }
        let router = try #require(HandoverSocket.connect(to: address))
        defer { close(router) }
        // Where only this test has the other end it can leave out what no router does.
        var ends: [CInt] = [0, 0]
        try #require(socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0, &ends) == 0)
        defer { close(ends[0]) }
        #expect(send_with_descriptor(router, [HandoverSocket.hello], 1, ends[1]) == 1)
        close(ends[1])
        let pair = try Pair()
        let message = [UInt8](repeating: 0, count: 9)
        #expect(send(ends[0], message, message.count, 0) == message.count)
        #expect(send_with_descriptor(ends[0], message, message.count, pair.own) == message.count)
        var answers: [UInt8] = []
        while answers.count < 2 {
            var wait = pollfd(fd: router, events: Int16(POLLIN), revents: 0)
            try #require(poll(&wait, 1, 10_000) == 1)
            var byte: UInt8 = 0
            try #require(recv(router, &byte, 1, 0) == 1)
            answers.append(byte)
        }
        #expect(answers == [HandoverSocket.refused, HandoverSocket.taken])
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
