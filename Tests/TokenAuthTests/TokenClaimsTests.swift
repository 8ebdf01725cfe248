import ChatCore
import Testing
import WireProtocol

@testable import TokenAuth

private let now: Int64 = 1_790_000_000

private func claims(
    _ payload: String, issuer: String? = nil, audience: String? = nil
) throws -> TokenClaims {
    let key = try TokenKey(secret: Array(repeating: 7, count: 32))
    let input = Base64URL.encode(Array("{\"alg\":\"HS256\"}".utf8)) + "." + Base64URL.encode(Array(payload.utf8))
    let token = input + "." + Base64URL.encode(try #require(key.sign(Array(input.utf8))))
    return try TokenVerifier(keys: TokenKeyRing([key]), issuer: issuer, audience: audience)
        .verify(token, nowSeconds: now)
}

private func refusal(_ payload: String, issuer: String? = nil, audience: String? = nil) -> TokenError? {
    do {
        _ = try claims(payload, issuer: issuer, audience: audience)
        return nil
    } catch {
        return error as? TokenError
    }
}

@Suite("Claims of tokens")
struct TokenClaimsTests {
    @Test("T3: a token that does not say when it ends is refused")
    func expiry() {
        #expect(refusal("{\"sub\":\"a\"}") == TokenError(.missingExpiry))
        #expect(refusal("{\"sub\":\"a\",\"exp\":1790000001}") == nil)
    }

    @Test("T3: a token made in the future is not valid yet: an order against all until now would pass it by")
    func future() {
        #expect(refusal("{\"sub\":\"a\",\"exp\":2e9,\"iat\":1790000030}") == nil)
        #expect(refusal("{\"sub\":\"a\",\"exp\":2e9,\"iat\":1790000031}") == TokenError(.notYetValid))
    }

    @Test("T3: the issuer must be exactly the one that is asked for")
    func issuer() {
        let from = { (json: String) in "{\"sub\":\"a\",\"exp\":2e9,\"iss\":\(json)}" }
        #expect(refusal(from("\"https://id.example\""), issuer: "https://id.example") == nil)
        #expect(refusal(from("\"https://id.example/\""), issuer: "https://id.example") == TokenError(.wrongIssuer))
        #expect(refusal(from("\"HTTPS://id.example\""), issuer: "https://id.example") == TokenError(.wrongIssuer))
        #expect(refusal("{\"sub\":\"a\",\"exp\":2e9}", issuer: "https://id.example") == TokenError(.wrongIssuer))
        #expect(refusal(from("[\"https://id.example\"]"), issuer: "https://id.example")?.claim == "iss")
        #expect(refusal(from("\"anybody\"")) == nil)
    }

    @Test("T3: a token for an audience is for that audience alone, which may be one of several")
    func audience() {
        let payload = { (json: String) in "{\"sub\":\"a\",\"exp\":2e9,\"aud\":\(json)}" }
        #expect(refusal(payload("\"chat\""), audience: "chat") == nil)
        #expect(refusal(payload("[\"shop\",\"chat\"]"), audience: "chat") == nil)
        #expect(refusal(payload("[\"shop\"]"), audience: "chat") == TokenError(.wrongAudience))
        #expect(refusal(payload("[]"), audience: "chat") == TokenError(.wrongAudience))
        #expect(refusal("{\"sub\":\"a\",\"exp\":2e9}", audience: "chat") == TokenError(.wrongAudience))
        #expect(refusal(payload("\"chat\"")) == TokenError(.wrongAudience))
        #expect(refusal(payload("[\"chat\",1]"), audience: "chat")?.claim == "aud")
        #expect(refusal(payload("{\"chat\":1}"), audience: "chat")?.claim == "aud")
    }

    @Test("a token's own name is 1 to 256 bytes without control characters, so that it can be revoked")
    func id() throws {
        #expect(try claims("{\"sub\":\"a\",\"exp\":2e9,\"jti\":\"7f\"}").id == "7f")
        #expect(refusal("{\"sub\":\"a\",\"exp\":2e9,\"jti\":\"\"}")?.claim == "jti")
        #expect(refusal("{\"sub\":\"a\",\"exp\":2e9,\"jti\":7}")?.claim == "jti")
        #expect(refusal("{\"sub\":\"a\",\"exp\":2e9,\"jti\":\"7\\u0000f\"}")?.claim == "jti")
        #expect(refusal("{\"sub\":\"a\",\"exp\":2e9,\"jti\":\"7\\u2028f\"}")?.claim == "jti")
        let long = String(repeating: "a", count: 257)
        #expect(refusal("{\"sub\":\"a\",\"exp\":2e9,\"jti\":\"\(long)\"}")?.claim == "jti")
    }

    @Test("the claim rooms gives capabilities, and none when it is missing")
    func rooms() throws {
        #expect(try claims("{\"sub\":\"a\",\"exp\":2e9}").capabilities == nil)
        #expect(try claims("{\"sub\":\"a\",\"exp\":2e9,\"rooms\":{}}").capabilities == Capabilities())
        let found = try claims(
            """
            {"sub":"a","exp":2e9,"rooms":{"team-7/*":["join","publish","presence","history"],"announce":["join"],"x":[]}}
            """
        ).capabilities
        let capabilities = try #require(found)
        #expect(capabilities.actions(in: try RoomName(validating: "team-7/a")) == .all)
        #expect(capabilities.actions(in: try RoomName(validating: "announce")) == .join)
        #expect(capabilities.actions(in: try RoomName(validating: "x")) == [])
        #expect(capabilities.actions(in: try RoomName(validating: "other")).isEmpty)
    }

    @Test(
        "a claim rooms of any other form is refused",
        arguments: [
            "null", "[]", "\"*\"", "1", "{\"*\":\"join\"}", "{\"*\":[1]}", "{\"*\":[\"jion\"]}", "{\"*\":[\"Join\"]}",
            "{\"a*b\":[\"join\"]}", "{\"\":[\"join\"]}", "{\"a b\":[\"join\"]}", "{\"a\":[],\"a\":[]}",
            "{\"*\":{\"join\":true}}", "{\"*\":null}",
        ])
    func badRooms(json: String) {
        #expect(refusal("{\"sub\":\"a\",\"exp\":2e9,\"rooms\":\(json)}")?.claim == "rooms", "\(json)")
        #expect(RoomsClaim.parse(json) == nil)
    }

    @Test("T24: no more than a hundred patterns are taken")
    func bound() {
        let patterns = { (count: Int) in (0..<count).map { "\"r\($0)\":[]" }.joined(separator: ",") }
        #expect(RoomsClaim.parse("{\(patterns(100))}")?.grants.count == 100)
        #expect(RoomsClaim.parse("{\(patterns(101))}") == nil)
        #expect(RoomsClaim.parse("{} x") == nil)
    }
}
