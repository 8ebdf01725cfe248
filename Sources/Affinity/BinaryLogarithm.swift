/// Logarithms that are the same on every machine: whole numbers alone, no libm.
enum BinaryLogarithm {
    /// -log2(value / 2^64), rounded up, in units of 2^-32: from 1 to 64 · 2^32. A value of 0 counts as 1.
    ///
    /// A greater value never gives a greater result. Bit by bit: squaring the mantissa doubles its logarithm, and the square
    /// has reached 2 where the next bit is 1 (Knuth, The Art of Computer Programming, volume 1, exercise 1.2.2-25). What
    /// squares lose below their 64 bits is less than one unit of the result in all.
    @inline(__always)
    static func negative(of value: UInt64) -> UInt64 {
        let value = value | 1
        let shift = value.leadingZeroBitCount
        // 1 ≤ mantissa < 2, in units of 2^-63.
        var mantissa = value << UInt64(truncatingIfNeeded: shift)
        var logarithm = UInt64(truncatingIfNeeded: 63 - shift)
        for _ in 0..<32 {
            // In units of 2^-62.
            let square = mantissa.multipliedFullWidth(by: mantissa).high
            let bit = square >> 63
            logarithm = logarithm << 1 | bit
            mantissa = square << (1 ^ bit)
        }
        return (64 << 32) - logarithm
    }
}
