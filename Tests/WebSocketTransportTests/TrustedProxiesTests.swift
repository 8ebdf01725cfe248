import Testing

@testable import WebSocketTransport

@Suite("Trusted proxies")
struct AddressBlockTests {
    @Test(
        "a block holds its addresses and no other",
        arguments: [
            ("10.0.0.0/8", "10.255.1.2", true), ("10.0.0.0/8", "11.0.0.0", false), ("10.1.2.3/8", "10.9.9.9", true),
            ("192.0.2.4", "192.0.2.4", true), ("192.0.2.4", "192.0.2.5", false),
            ("192.0.2.128/25", "192.0.2.127", false),
            ("192.0.2.128/25", "192.0.2.129", true), ("0.0.0.0/0", "203.0.113.1", true), ("0.0.0.0/0", "::1", false),
            ("::1", "::1", true), ("::/0", "10.0.0.1", false), ("fd00::/8", "fdab::1", true),
            ("fd00::/8", "fe80::1", false), ("2001:db8::/33", "2001:db8:7fff::", true),
            ("2001:db8::/33", "2001:db8:8000::", false), ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("::ffff:10.0.0.0/104", "10.1.1.1", true), ("::ffff:10.0.0.0/104", "11.1.1.1", false),
            ("fe80::1", "fe80::1%eth0", true),
        ]
    )
    func contains(block: String, address: String, expected: Bool) throws {
        let block = try #require(AddressBlock(block))
        #expect(block.contains(try #require(IPAddress(address))) == expected)
    }

    @Test(
        "what is no block is none",
        arguments: [
            "", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/8/8", "10.0.0/8", "::/129",
            "localhost", "10.0.0.1 ", "::ffff:10.0.0.0/8", "fe80::1%eth0/64", "010.0.0.1.1",
        ]
    )
    func refused(text: String) {
        #expect(AddressBlock(text) == nil)
    }

    @Test("T16: the client is the first in the chain, from the right, that no trusted proxy vouches for")
    func chain() throws {
        let trusted = TrustedProxies(["10.0.0.0/8", "fd00::/8"].compactMap { AddressBlock($0) })
        func client(_ peer: String, _ chain: String) throws -> String {
            trusted.client(of: try #require(IPAddress(peer)), chain: chain.split(separator: ",")).description
        }
        #expect(try client("192.0.2.1", "203.0.113.1") == "192.0.2.1")
        #expect(try client("10.0.0.1", "203.0.113.1") == "203.0.113.1")
        #expect(try client("10.0.0.1", "198.51.100.1, 203.0.113.1 , fd00::5,10.0.0.2") == "203.0.113.1")
        #expect(try client("10.0.0.1", "10.0.0.9") == "10.0.0.9")
        for hop in ["203.0.113.1:4711", "203.0.113.1:", "::ffff:203.0.113.1"] {
            #expect(try client("10.0.0.1", hop) == "203.0.113.1")
        }
        for hop in ["2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:4711"] {
            #expect(try client("10.0.0.1", hop) == "2001:db8::1")
        }
        // Nonsense is nobody whom a proxy's rights could be given.
        for chain in ["unknown, 10.0.0.3", "203.0.113.1:x", "[2001:db8::1", "[2001:db8::1]x", "198.51.100.1, 1.2.3"] {
            #expect(try client("10.0.0.1", chain) == "::", "\(chain)")
        }
        #expect(try client("10.0.0.1", "") == "10.0.0.1")
    }
}
