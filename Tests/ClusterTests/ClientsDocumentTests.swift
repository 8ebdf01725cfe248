import Foundation
import MartletClient
import TestSupport
import Testing

/// The Swift example of docs/clients.md, built and run.
struct ClientsDocumentTests {
    @Test("The Swift example of docs/clients.md is what this test runs, and it works")
    func example() async throws {
        let here = URL(fileURLWithPath: #filePath)
        let root = here.deletingLastPathComponent().appendingPathComponent("../..")
        let page = try String(contentsOf: root.appendingPathComponent("docs/clients.md"), encoding: .utf8)
        let shown = try #require(page.components(separatedBy: "```swift\n").last?.components(separatedBy: "```").first)
        let source = try String(contentsOf: here, encoding: .utf8)
        let run = try #require(source.components(separatedBy: "// begin\n").dropFirst().first)
            .components(separatedBy: "            // end").first
        let expected = shown.replacing("import MartletClient\n\n", with: "").replacing(
            #""ws://127.0.0.1:8080/ws""#, with: "url")
        #expect(run?.replacing("\n            ", with: "\n").drop { $0 == " " } ?? "" == expected[...])

        try await SharedCluster.use { cluster in
            let url = "ws://127.0.0.1:\(cluster.routers[0].port)/ws"
            // begin
            let client = try MartletClient(url: url, credential: .user("alice"))
            let events = client.events()
            client.connect()
            try await client.join("general")
            let listening = Task {
                for await event in events {
                    switch event {
                    case .message(let message): print(message.seq, message.from, message.text ?? "")
                    case .gap(let room, _, let to): print("\(room) lost messages up to \(to)")
                    default: break
                    }
                }
            }
            let ack = try await client.publish("hi", to: "general")
            print("stored as \(ack.seq)")
            client.close()
            await listening.value
            // end
            #expect(ack.seq > 0)
        }
    }
}
