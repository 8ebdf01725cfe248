/// A welcomed connection and the few things that nearly every test asks of it.
package struct Session: Sendable {
    package let user: String
    package let client: TestClient
    package let welcome: JSON

    package init(user: String, client: TestClient, welcome: JSON) {
        (self.user, self.client, self.welcome) = (user, client, welcome)
    }

    package var id: String { welcome["session"]?.string ?? "" }
    package var node: String { welcome["node"]?.string ?? "" }

    package static func percentEncoded(_ text: String) -> String {
        text.utf8.map { byte in
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."):
                return String(UnicodeScalar(byte))
            default:
                let hex = String(byte, radix: 16, uppercase: true)
                return "%" + (hex.count == 1 ? "0" : "") + hex
            }
        }.joined()
    }

    @discardableResult
    package func join(_ room: String, _ fields: [String: JSON] = [:]) async throws -> JSON {
        var message: [String: JSON] = ["type": "join", "room": .string(room)]
        message.merge(fields) { $1 }
        client.send(.object(message))
        return try await answer("joined", to: room)
    }

    package func leave(_ room: String) async throws {
        client.send(["type": "leave", "room": .string(room)])
        _ = try await answer("left", to: room)
    }

    /// Publishes and waits for the ack.
    ///
    /// - Throws: ``Refusal`` when the answer is an error.
    @discardableResult
    package func say(
        _ text: String,
        in room: String,
        id: String? = nil,
        within limit: Duration = .seconds(10)
    ) async throws -> JSON {
        let id = id ?? Self.newID()
        client.send(["type": "message", "room": .string(room), "text": .string(text), "id": .string(id)])
        let answer = try await client.next("the answer to \(id)", within: limit) {
            $0["id"]?.string == id && ["ack", "error"].contains($0["type"]?.string)
        }
        if answer["type"]?.string == "error" { throw Refusal(error: answer) }
        return answer
    }

    /// The next message of a room with this text.
    package func hears(_ text: String, in room: String, within limit: Duration = .seconds(10)) async throws -> JSON {
        try await client.next("the message \(text) in \(room)", within: limit) {
            $0["type"]?.string == "message" && $0["room"]?.string == room && $0["text"]?.string == text
        }
    }

    /// The whole member list, as the server answers it now.
    package func presence(of room: String) async throws -> JSON {
        let id = Self.newID()
        client.send(["type": "presence", "room": .string(room), "id": .string(id)])
        return try await client.next("presence", room: room, id: id)
    }

    package func users(of room: String) async throws -> [String] {
        (try await presence(of: room)["members"]?.array ?? []).compactMap { $0["user"]?.string }.sorted()
    }

    /// All presence events (not answers) of a room so far, in order.
    package func presenceEvents(of room: String) -> [JSON] {
        client.heard.current.all.filter {
            $0["type"]?.string == "presence" && $0["room"]?.string == room && $0["members"] == nil
        }
    }

    private func presenceMessages(of room: String) -> [String] {
        client.heard.current.all.filter { $0["type"]?.string == "presence" && $0["room"]?.string == room }.map(\.text)
    }

    /// How often each user joined or left by the events so far.
    package func presenceCounts(_ kind: String, of room: String) -> [String: Int] {
        var counts: [String: Int] = [:]
        for event in presenceEvents(of: room) {
            for member in event[kind]?.array ?? [] {
                if let user = member["user"]?.string { counts[user, default: 0] += 1 }
            }
        }
        return counts
    }

    /// Waits for a presence event in which `user` joins or leaves.
    @discardableResult
    package func sees(
        _ kind: String,
        _ user: String,
        in room: String,
        within limit: Duration = .seconds(10)
    ) async throws -> JSON {
        // Not taken out: one event can carry many users.
        try await client.heard.wait(
            within: limit,
            "\(self.user) to see \(user) in \(kind): \(self.presenceMessages(of: room))"
        ) {
            heard in
            let event = heard.all.first { message in
                message["type"]?.string == "presence" && message["room"]?.string == room
                    && (message[kind]?.array ?? []).contains { $0["user"]?.string == user }
            }
            if let event { return Result<JSON, any Error>.success(event) }
            return heard.closed.map {
                .failure(TestClient.ConnectionClosed(description: "closed with \($0) before \(user) \(kind)"))
            }
        }.get()
    }

    /// The messages of a room that came so far, in the order in which they came.
    package func messages(in room: String) -> [JSON] {
        client.heard.current.all.filter { $0["type"]?.string == "message" && $0["room"]?.string == room }
    }

    package static func newID() -> String { "id-\(UInt64.random(in: 0...UInt64.max))" }

    private func answer(_ type: String, to room: String) async throws -> JSON {
        let answer = try await client.next("\(type) or an error for \(room)") {
            $0["room"]?.string == room && [type, "error"].contains($0["type"]?.string)
        }
        if answer["type"]?.string == "error" { throw Refusal(error: answer) }
        return answer
    }
}

/// An `error` frame in place of what was asked for.
package struct Refusal: Error, CustomStringConvertible {
    package let error: JSON
    package var code: Int64? { error["code"]?.int }
    package var reason: String? { error["reason"]?.string }
    package var description: String { error.text }

    package init(error: JSON) {
        self.error = error
    }
}
