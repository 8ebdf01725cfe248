import Glibc

/// An IP address; one that is IPv4 mapped into IPv6 (RFC 4291 section 2.5.5.2) is the IPv4 one.
package struct IPAddress: Hashable, Sendable, CustomStringConvertible {
    /// The 128 bits of IPv6, IPv4 mapped into it.
    package let high: UInt64
    package let low: UInt64

    private static let mapped: UInt64 = 0xFFFF_0000_0000

    /// `::`, for a peer that has no address.
    package static let unspecified = IPAddress(high: 0, low: 0)

    package static let loopback = IPAddress(high: 0, low: mapped | 0x7F00_0001)

    init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// Takes what `inet_pton` takes, with an IPv6 zone cut off.
    package init?(_ text: some StringProtocol) {
        let bare = String(text.prefix { $0 != "%" })
        var raw: (UInt64, UInt64) = (0, 0)
        if inet_pton(AF_INET, bare, &raw) == 1 {
            self.init(high: 0, low: Self.mapped | UInt64(bigEndian: raw.0) >> 32)
        } else if inet_pton(AF_INET6, bare, &raw) == 1 {
            self.init(high: UInt64(bigEndian: raw.0), low: UInt64(bigEndian: raw.1))
        } else {
            return nil
        }
    }

    /// Of a `sockaddr_in` or `sockaddr_in6` (ip(7), ipv6(7)); ``unspecified`` where it is neither.
    init(sockaddr bytes: UnsafeRawBufferPointer) {
        func word<Word: FixedWidthInteger>(_ offset: Int, _: Word.Type) -> UInt64 {
            UInt64(Word(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Word.self)))
        }
        switch Int32(bytes.load(as: sa_family_t.self)) {
        case AF_INET: self.init(high: 0, low: Self.mapped | word(4, UInt32.self))
        case AF_INET6: self.init(high: word(8, UInt64.self), low: word(16, UInt64.self))
        default: self = .unspecified
        }
    }

    /// - Parameter bytes: four or sixteen, in network order.
    init(bytes: some Collection<UInt8>) {
        func word(_ bytes: some Sequence<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }
        self.init(
            high: bytes.count == 4 ? 0 : word(bytes.prefix(8)),
            low: bytes.count == 4 ? Self.mapped | word(bytes) : word(bytes.dropFirst(8)))
    }

    package var isIPv4: Bool { high == 0 && low >> 32 == Self.mapped >> 32 }

    /// Four or sixteen, in network order.
    package var bytes: [UInt8] {
        let all = [high, low].flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> (56 - 8 * $0)) } }
        return isIPv4 ? Array(all[12...]) : all
    }

    /// What one who holds it may be expected to hold: itself in IPv4, in IPv6 the 64 bits of its network, of which whoever
    /// has one address has all (RFC 4291 section 2.5.1).
    package var network: IPAddress { isIPv4 ? self : IPAddress(high: high, low: 0) }

    /// 127.0.0.0/8 or ::1.
    package var isLoopback: Bool { isIPv4 ? (low >> 24) & 0xFF == 127 : high == 0 && low == 1 }

    package var description: String {
        let bytes = bytes
        var text = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
        let family = bytes.count == 4 ? AF_INET : AF_INET6
        guard inet_ntop(family, bytes, &text, socklen_t(text.count)) != nil else { return "" }
        return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
