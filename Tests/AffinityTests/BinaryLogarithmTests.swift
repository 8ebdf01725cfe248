import Glibc
import TestSupport
import Testing

@testable import Affinity

@Suite("The logarithm in whole numbers")
struct BinaryLogarithmTests {
    private static let unit = 4_294_967_296.0

    @Test("of powers of two is exact")
    func powers() {
        for power in 1...63 {
            // The lowest bit, which every value counts as set, is the difference.
            let exact = UInt64(64 - power) << 32
            let result = BinaryLogarithm.negative(of: 1 << UInt64(power))
            #expect(result == exact || (power < 40 && exact - result < 1 << 32), "2^\(power)")
        }
        #expect(BinaryLogarithm.negative(of: 0) == 64 << 32)
        #expect(BinaryLogarithm.negative(of: 1) == 64 << 32)
        #expect(BinaryLogarithm.negative(of: .max) == 1)
    }

    @Test("is that of libm to within its own precision")
    func precision() {
        var generator = SplitMix(seed: 1)
        for _ in 0..<20_000 {
            // Of all magnitudes.
            let value = generator.next() >> UInt64.random(in: 0..<40, using: &generator)
            let expected = (64 - log2(Double(value | 1))) * Self.unit
            let result = Double(BinaryLogarithm.negative(of: value))
            // Double has 53 bits, 64 units of the result's need 38: what is off by more than 2 is wrong.
            #expect(abs(result - expected) <= 2, "\(value): \(result) \(expected)")
        }
    }

    @Test("never rises where the value does")
    func monotone() {
        var generator = SplitMix(seed: 2)
        for _ in 0..<20_000 {
            let value = generator.next() >> UInt64.random(in: 0..<63, using: &generator)
            let greater = value &+ (generator.next() >> UInt64.random(in: 1..<64, using: &generator))
            guard greater > value else { continue }
            #expect(BinaryLogarithm.negative(of: greater) <= BinaryLogarithm.negative(of: value))
            #expect(BinaryLogarithm.negative(of: value + 1) <= BinaryLogarithm.negative(of: value))
        }
    }
}
