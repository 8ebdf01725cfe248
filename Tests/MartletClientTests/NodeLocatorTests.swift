import Testing

@testable import MartletClient

@Suite("Where a client connects without a router")
struct NodeLocatorTests {
    @Test("it asks beside the path of the WebSocket, with the same query")
    func target() {
        #expect(NodeLocator.target("/ws?user=a&client=b") == "/locate?user=a&client=b")
        #expect(NodeLocator.target("/chat/ws?x=/y") == "/chat/locate?x=/y")
        #expect(NodeLocator.target("/") == "/locate")
    }

    private func address(_ answer: String, for url: String = "ws://r/ws?user=a", isSecure: Bool = false) -> String? {
        NodeLocator.address(in: Array(answer.utf8), for: url, isSecure: isSecure)
    }

    @Test("it connects to the address that it is told, with its own query")
    func address() {
        #expect(address(#"{"node":"n","url":"ws://n:8081/ws"}"#) == "ws://n:8081/ws?user=a")
        #expect(address(#"{"node":"n","url":"wss://n/ws"}"#) == "wss://n/ws?user=a")
        #expect(address(#"{"node":"n","url":"ws://n/ws"}"#, for: "ws://r/ws") == "ws://n/ws")
    }

    @Test("it goes through the router when there is no address, or one that will not do")
    func noAddress() {
        for answer in [
            #"{"node":"n"}"#, #"{"node":"n","url":""}"#, #"{"url":"https://n/ws"}"#,
            #"{"url":"ws://n/ws?user=mallory"}"#,
            #"{"url":"ws://u@n/ws"}"#, #"{"url":17}"#, "", "no JSON", "[]",
        ] {
            #expect(address(answer) == nil, "\(answer)")
        }
        #expect(address(#"{"url":"ws://n/ws"}"#, isSecure: true) == nil, "never without TLS where the router has it")
        #expect(address(#"{"url":"wss://n/ws"}"#, isSecure: true) == "wss://n/ws?user=a")
    }
}
