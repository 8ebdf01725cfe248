import Foundation
import MartletClient
import TestSupport
import Testing

/// The Swift examples of docs/clients.md and of the DocC page, built and run.
struct ClientsDocumentTests {
    /// Between the line `// begin NAME` of this file and the next `// end` there is what the last example of the page shows.
    private func expectShown(_ name: String, in page: String) throws {
        let here = URL(fileURLWithPath: #filePath)
        let root = here.deletingLastPathComponent().appendingPathComponent("../..")
        let text = try String(contentsOf: root.appendingPathComponent(page), encoding: .utf8)
        let shown = try #require(text.components(separatedBy: "```swift\n").last?.components(separatedBy: "```").first)
        let lines = try String(contentsOf: here, encoding: .utf8).components(separatedBy: "\n")
        let begin = try #require(lines.firstIndex { $0.hasSuffix("// begin \(name)") })
        let indent = lines[begin].prefix { $0 == " " }.count
        let run = lines[(begin + 1)...].prefix { !$0.hasSuffix("// end") }.map { $0.dropFirst(indent) + "\n" }.joined()
        let expected = shown.replacing("import MartletClient\n\n", with: "")
            .replacing(#""ws://127.0.0.1:8080/ws""#, with: "url")
        #expect(run == expected)
    }

    @Test("The Swift example of docs/clients.md is what this test runs, and it works")
    func example() async throws {
        try expectShown("clients", in: "docs/clients.md")
        try await SharedCluster.use { cluster in
            let url = "ws://127.0.0.1:\(cluster.routers[0].port)/ws"
            // begin clients
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

    @Test("The example of the DocC page is what this test runs, and it works")
    func page() async throws {
        try expectShown("page", in: "Sources/MartletClient/MartletClient.docc/MartletClient.md")
        try await Machine.with(Cluster.Options(nodes: 1)) { cluster in
            let url = "ws://127.0.0.1:\(cluster.nodes[0].port)/ws"
            let bob = try await cluster.connect("bob", to: 0)
            try await bob.join("general")
            let printed = Watched<[String]>([])
            // What it says to the terminal.
            @Sendable func print(_ words: Any...) {
                printed.update { $0.append(words.map { "\($0)" }.joined(separator: " ")) }
            }
            let example = Task {
                // begin page
                let client = try MartletClient(url: url, credential: .user("alice"))
                let events = client.events()
                client.connect()
                try await client.join("general")
                let ack = try await client.publish("hi", to: "general")
                print("stored as \(ack.seq)")
                for await event in events {
                    switch event {
                    case .message(let message): print(message.seq, message.from, message.text ?? "")
                    case .gap(let room, _, let to): print("\(room) lost messages up to \(to)")
                    default: break
                    }
                }
                // end
            }
            _ = try await bob.hears("hi", in: "general")
            try await bob.say("hello", in: "general")
            let lines = ["stored as 1", "1 alice hi", "2 bob hello"]
            _ = try await printed.wait(within: .seconds(20), "what the example prints") { $0 == lines ? true : nil }
            // It listens until its task ends.
            example.cancel()
            try await example.value
        }
    }
}
