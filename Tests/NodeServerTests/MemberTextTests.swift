import Testing

@testable import NodeServer

@Suite("Member objects of presence events")
struct MemberTextTests {
    @Test(
        "the user's literal is the same in every object of that user, whatever its characters",
        arguments: [
            (#"{"user":"alice"}"#, "alice"), (#"{"user":"alice","status":"away"}"#, "alice"),
            (#"{"user":"a\"b","info":{"user":"x"}}"#, #"a\"b"#), (#"{"user":"a\\","status":"busy"}"#, #"a\\"#),
        ])
    func literal(_ member: String, _ literal: String) {
        #expect(MemberText.user(of: member) == Array(literal.utf8))
    }
}
