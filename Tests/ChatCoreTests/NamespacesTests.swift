import ChatCore
import Testing
import WireProtocol

@Suite("Who may do what in which room")
struct NamespacesTests {
    private func room(_ name: String) throws -> RoomName { try RoomName(validating: name) }

    @Test("A pattern is a whole name, or a beginning with a star behind it")
    func patterns() throws {
        let exact = try #require(RoomPattern("announce"))
        #expect(exact.matches(try room("announce")))
        #expect(!exact.matches(try room("announcements")))
        let prefix = try #require(RoomPattern("team-7/*"))
        #expect(prefix.matches(try room("team-7/a")))
        #expect(!prefix.matches(try room("team-70/a")))
        #expect(try #require(RoomPattern("*")).matches(try room("news:x")))
    }

    @Test(
        "A pattern that no room can match is refused",
        arguments: ["", "a*b", "**", "a b", "é*", String(repeating: "x", count: 129)])
    func badPatterns(_ text: String) {
        #expect(RoomPattern(text) == nil)
    }

    @Test("Patterns that match one room add up; a room that none matches is left to its namespace")
    func capabilities() throws {
        let capabilities = Capabilities([
            .init(pattern: try #require(RoomPattern("team/*")), actions: [.join]),
            .init(pattern: try #require(RoomPattern("team/a")), actions: [.publish]),
        ])
        #expect(capabilities.actions(in: try room("team/a")) == [.join, .publish])
        #expect(capabilities.actions(in: try room("team/b")) == .join)
        #expect(capabilities.actions(in: try room("other")) == nil)
    }

    @Test("A namespace that nobody declared has no rules; private rooms always have some")
    func unknownNamespace() throws {
        var team = NamespaceRules()
        team.historyMessages = 7
        let namespaces = Namespaces(named: ["team": team])
        #expect(namespaces.rules(of: try room("team:x"))?.historyMessages == 7)
        #expect(namespaces.rules(of: try room("general"))?.historyMessages == 1000)
        #expect(namespaces.rules(of: try room("Team:x")) == nil)
        #expect(namespaces.rules(of: .direct(try UserName(validating: "a"), try UserName(validating: "b"))) != nil)
    }
}
