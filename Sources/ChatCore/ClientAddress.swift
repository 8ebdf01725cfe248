import Glibc

/// A client's IP address, in sixteen bytes, for each connection keeps it. IPv4 stands as mapped into IPv6 (RFC 4291 section
/// 2.5.5.2), so an address has one form whichever way it came.
package struct ClientAddress: Hashable, Sendable, CustomStringConvertible {
    /// Two halves: a `UInt128` would ask for alignment that most of its places do not need.
    private let high: UInt64
    private let low: UInt64

    /// `::`, which no client has.
    package static let unknown = ClientAddress(0)

    /// Takes what `inet_pton` takes, with an IPv6 zone cut off.
    package init?(_ text: some StringProtocol) {
        let bare = String(text.prefix { $0 != "%" })
        var four = in_addr()
        if inet_pton(AF_INET, bare, &four) == 1 {
            self.init(0xFFFF << 32 | UInt128(UInt32(bigEndian: four.s_addr)))
            return
        }
        var six = in6_addr()
        guard inet_pton(AF_INET6, bare, &six) == 1 else { return nil }
        self.init(withUnsafeBytes(of: &six) { $0.reduce(0) { $0 << 8 | UInt128($1) } })
    }

    /// Of the 128 bits of IPv6.
    package init(high: UInt64, low: UInt64) {
        (self.high, self.low) = (high, low)
    }

    fileprivate init(_ number: UInt128) {
        high = UInt64(truncatingIfNeeded: number >> 64)
        low = UInt64(truncatingIfNeeded: number)
    }

    fileprivate var number: UInt128 { UInt128(high) << 64 | UInt128(low) }

    package var isIPv4: Bool { high == 0 && low >> 32 == 0xFFFF }

    package var description: String {
        var text = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
        let bytes = (0..<16).map { UInt8(truncatingIfNeeded: number >> (120 - 8 * $0)) }
        let written =
            isIPv4
            ? inet_ntop(AF_INET, Array(bytes[12...]), &text, socklen_t(text.count))
            : inet_ntop(AF_INET6, bytes, &text, socklen_t(text.count))
        guard written != nil else { return "" }
        return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// A range of addresses in CIDR notation (RFC 4632, RFC 4291 section 2.3), or one address. Bits behind the prefix do not
/// count, so `10.1.2.3/8` is `10.0.0.0/8`.
package struct AddressRange: Hashable, Sendable, CustomStringConvertible {
    package let first: ClientAddress
    /// Of the 128 bits of IPv6: an IPv4 range has 96 at least.
    package let prefixLength: UInt8

    package init?(_ text: some StringProtocol) {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let head = parts.first, !head.contains("%"), let address = ClientAddress(head) else { return nil }
        // A mapped address was written with the width of IPv6.
        let isShort = address.isIPv4 && !head.contains(":")
        var length = 128
        if parts.count == 2 {
            guard (1...3).contains(parts[1].utf8.count), parts[1].utf8.allSatisfy({ (0x30...0x39).contains($0) }),
                let given = Int(parts[1]), given <= (isShort ? 32 : 128)
            else { return nil }
            length = isShort ? given + 96 : given
            guard length >= 96 || !address.isIPv4 else { return nil }
        }
        self.init(of: address, prefixLength: UInt8(length))
    }

    /// The range of that length in which the address is.
    package init(of address: ClientAddress, prefixLength: UInt8) {
        let mask = prefixLength == 0 ? 0 : UInt128.max << (128 - UInt128(prefixLength))
        first = ClientAddress(address.number & mask)
        self.prefixLength = prefixLength
    }

    package var description: String {
        guard prefixLength < 128 else { return first.description }
        return "\(first)/\(first.isIPv4 ? prefixLength - 96 : prefixLength)"
    }
}
