import Glibc
import NIOCore
import NIOPosix
import Testing

@testable import RouterServer

@Suite("Whose fault a failed connection is")
struct ConnectFailureTests {
    @Test("the node's, when it refused or could not be reached", arguments: [ECONNREFUSED, EHOSTUNREACH, ETIMEDOUT])
    func ofNode(code: CInt) {
        #expect(ConnectFailure.isOfNode(IOError(errnoCode: code, reason: "connect")))
    }

    @Test("the router's own, when it lacks descriptors, ports or memory", arguments: [EMFILE, EADDRNOTAVAIL, ENOBUFS])
    func own(code: CInt) {
        #expect(!ConnectFailure.isOfNode(IOError(errnoCode: code, reason: "socket")))
    }

    @Test("the node's, when its name leads to a port that refuses, or the time for it is over")
    func byName() async throws {
        let unused = try await FakeNode.start("gone")
        try await unused.stop()
        let error = await #expect(throws: (any Error).self) {
            _ = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .connect(host: "localhost", port: unused.port).get()
        }
        #expect(ConnectFailure.isOfNode(try #require(error)))
        #expect(ConnectFailure.isOfNode(ChannelError.connectTimeout(.seconds(2))))
    }
}
