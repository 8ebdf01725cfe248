/// A range of addresses in CIDR notation (RFC 4632, RFC 4291 section 2.3): `10.0.0.0/8`, `fd00::/8`, or one address.
/// Bits behind the prefix do not count, so `10.1.2.3/8` is `10.0.0.0/8`.
package struct AddressBlock: Hashable, Sendable {
    private let address: IPAddress
    private let prefix: Int

    package init?(_ text: some StringProtocol) {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let first = parts.first, !first.contains("%"), let address = IPAddress(first) else { return nil }
        let width = address.isIPv4 ? 32 : 128
        var prefix = width
        if parts.count == 2 {
            guard (1...3).contains(parts[1].utf8.count), parts[1].utf8.allSatisfy({ (0x30...0x39).contains($0) }),
                let given = Int(parts[1])
            else { return nil }
            // A mapped address was written with the width of IPv6.
            prefix = first.contains(":") && width == 32 ? given - 96 : given
            guard (0...width).contains(prefix) else { return nil }
        }
        self.address = address
        self.prefix = prefix
    }

    package func contains(_ other: IPAddress) -> Bool {
        guard other.isIPv4 == address.isIPv4 else { return false }
        let bits = address.isIPv4 ? prefix + 96 : prefix
        // A shift by 64 or more leaves 0.
        return (other.high ^ address.high) & ~(UInt64.max >> min(bits, 64)) == 0
            && (other.low ^ address.low) & ~(UInt64.max >> max(bits - 64, 0)) == 0
    }

    /// The first of the block, at most so many.
    package func addresses(atMost count: Int) -> [IPAddress] {
        let free = (address.isIPv4 ? 32 : 128) - prefix
        let wanted = UInt64(free < 32 ? min(count, 1 << free) : count)
        let bits = address.isIPv4 ? prefix + 96 : prefix
        let high = address.high & ~(UInt64.max >> min(bits, 64))
        let low = address.low & ~(UInt64.max >> max(bits - 64, 0))
        return (0..<wanted).map { IPAddress(high: high, low: low &+ $0) }
    }
}

/// The proxies in front of a server whose word on a client is taken.
package struct TrustedProxies: Sendable {
    private let blocks: [AddressBlock]

    package init(_ blocks: [AddressBlock]) { self.blocks = blocks }

    /// This machine: 127.0.0.0/8 and ::1.
    package static let loopback = TrustedProxies(["127.0.0.0/8", "::1"].compactMap { AddressBlock($0) })

    package func contains(_ address: IPAddress) -> Bool { blocks.contains { $0.contains(address) } }

    /// The address of the client itself: the peer, or, walking back through the chain of X-Forwarded-For while the
    /// one before is trusted, the first that is not. Where a trusted one wrote what is no address, nobody knows the client:
    /// it is ``IPAddress/unspecified``, which no proxy has, so that limits hold for all such clients together.
    ///
    /// - Parameter chain: the addresses of the field, in the order of the lines and in a line from left to right.
    package func client(of peer: IPAddress, chain: [Substring]) -> IPAddress {
        var client = peer
        for hop in chain.reversed() {
            guard contains(client) else { break }
            client = Self.address(of: hop.trimmedBlanks) ?? .unspecified
        }
        return client
    }

    /// Some proxies write the port, too: `192.0.2.1:4711`, `[2001:db8::1]:4711` (as in RFC 7239 section 6).
    private static func address(of hop: Substring) -> IPAddress? {
        if hop.first == "[", let end = hop.firstIndex(of: "]") {
            return isPort(hop[hop.index(after: end)...]) ? IPAddress(hop[..<end].dropFirst()) : nil
        }
        guard let colon = hop.firstIndex(of: ":"), hop.contains("."), isPort(hop[colon...]) else {
            return IPAddress(hop)
        }
        return IPAddress(hop[..<colon])
    }

    /// Nothing, or `:` with digits.
    private static func isPort(_ text: Substring) -> Bool {
        text.isEmpty || (text.first == ":" && text.utf8.dropFirst().allSatisfy { (0x30...0x39).contains($0) })
    }
}

extension Substring {
    /// Without spaces and tabs at both ends.
    package var trimmedBlanks: Substring {
        var rest = self.utf8
        while let first = rest.first, first == 0x20 || first == 0x09 { rest.removeFirst() }
        while let last = rest.last, last == 0x20 || last == 0x09 { rest.removeLast() }
        return Substring(rest)
    }
}
