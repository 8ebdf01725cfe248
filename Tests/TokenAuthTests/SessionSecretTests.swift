import Testing

@testable import TokenAuth

@Suite("The secret of a session")
struct SessionSecretTests {
    @Test("T5: is 256 bits, another each time, and nothing else is one")
    func shape() throws {
        let secret = SessionSecret()
        #expect(secret.string.utf8.count == 43)
        #expect(SessionSecret(secret.string) == secret)
        #expect(SessionSecret() != secret)
        for text in ["", String(secret.string.dropLast()), secret.string + "A", String(secret.string.dropLast()) + "="]
        {
            #expect(SessionSecret(text) == nil, "\(text)")
        }
    }

    @Test("T5: is kept as its SHA-256, and does not show in logs")
    func digest() throws {
        // printf %s AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA | sha256sum
        let secret = try #require(SessionSecret(String(repeating: "A", count: 43)))
        #expect(secret.digest.hex == "0f007385b6f9d4b7eeb2748605afe1a984a0a3bfa3f014d09e2a784ce9e5cd1a")
        #expect(!"\(secret)".contains("AAA"))
    }
}
