/// Rendezvous (highest random weight) hashing: Thaler and Ravishankar, "Using name-based mappings to increase hit
/// rates" (1998), with a key of 128 bits.
///
/// 1. The order of candidates for a key is a pure function of the hash key, the affinity key and the candidates'
///    names: every router with the same secret gives the same one, in whatever order it learnt of them.
/// 2. When a candidate goes, only the keys that had it first move, evenly over the others; when one comes, it takes
///    its share evenly from the others, and no key moves between those.
/// 3. Who does not know the hash key cannot choose affinity keys that meet on one candidate.
/// 4. A candidate's share of the keys is that of its weight: the one with the least -ln(hash) ÷ weight comes first
///    (Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", 2005). A weight that changes moves keys to or from
///    that candidate alone. Among equal weights this is the order of the hashes.
package struct RendezvousHash: Sendable {
    private let keys: SipHash
    private let names: SipHash

    package init(key: (UInt64, UInt64)) {
        keys = SipHash(key: key)
        // Another key for names, so that an affinity key that equals a name is nothing special.
        names = SipHash(key: (key.1 ^ 0x6e6f_6465_6e6f_6465, key.0))
    }

    package static let weights = 1...1000

    /// A candidate with its name's hash, so that a pick hashes no name.
    package struct Candidate: Sendable, Hashable {
        package let name: String
        package let weight: Int
        fileprivate let hash: UInt64
    }

    /// - Parameter weight: its share of the keys next to the others'; what is out of `weights` counts as the nearest in it.
    package func candidate(_ name: String, weight: Int = 100) -> Candidate {
        Candidate(
            name: name, weight: min(max(weight, Self.weights.lowerBound), Self.weights.upperBound),
            hash: names.hash(name.utf8))
    }

    /// The candidates of equal weight from the first choice to the last resort.
    package func order(of candidates: [String], for key: some Collection<UInt8>) -> [String] {
        let prepared = candidates.map { candidate($0) }
        return order(of: prepared, for: key).map { candidates[$0] }
    }

    /// As above, as indices into `candidates`, by their weights.
    package func order(of candidates: [Candidate], for key: some Collection<UInt8>) -> [Int] {
        let hash = keys.hash(key)
        guard Self.isWeighted(candidates) else {
            var draws = candidates.indices.map { (index: $0, hash: mix(candidates[$0].hash ^ hash)) }
            draws.sort { left, right in
                left.hash != right.hash
                    ? left.hash > right.hash : candidates[left.index].name < candidates[right.index].name
            }
            return draws.map(\.index)
        }
        var draws = candidates.indices.map { draw($0, candidates[$0], hash) }
        draws.sort { Self.precedes($0, $1, candidates) }
        return draws.map(\.index)
    }

    /// A number below 1000 of a candidate and a key, evenly spread and independent of the order: who takes a part of its keys
    /// takes those below a bound.
    package func ticket(of candidate: Candidate, for key: some Collection<UInt8>) -> Int {
        let draw = mix(mix(candidate.hash ^ keys.hash(key)) &+ 0x9e37_79b9_7f4a_7c15)
        return Int(((draw >> 32) * 1000) >> 32)
    }

    /// The index of the first choice, in O(n) and without a sort; nil without candidates.
    package func first(of candidates: [Candidate], for key: some Collection<UInt8>) -> Int? {
        let hash = keys.hash(key)
        guard let one = candidates.first else { return nil }
        var best = 0
        guard Self.isWeighted(candidates) else {
            var highest = mix(one.hash ^ hash)
            for index in candidates.indices.dropFirst() {
                let other = mix(candidates[index].hash ^ hash)
                guard other >= highest, other > highest || candidates[index].name < candidates[best].name else {
                    continue
                }
                (best, highest) = (index, other)
            }
            return best
        }
        var lowest = draw(0, one, hash)
        for index in candidates.indices.dropFirst() {
            let other = draw(index, candidates[index], hash)
            if Self.precedes(other, lowest, candidates) { (best, lowest) = (index, other) }
        }
        return best
    }

    private static func isWeighted(_ candidates: [Candidate]) -> Bool {
        guard let weight = candidates.first?.weight else { return false }
        for candidate in candidates where candidate.weight != weight { return true }
        return false
    }

    /// What a candidate drew for a key, where weights differ.
    private struct Draw {
        let index: Int
        let hash: UInt64
        /// -log2 of the hash as a fraction.
        let logarithm: UInt64
        let weight: UInt64
    }

    @inline(__always)
    private func draw(_ index: Int, _ candidate: Candidate, _ key: UInt64) -> Draw {
        let hash = mix(candidate.hash ^ key)
        return Draw(
            index: index, hash: hash, logarithm: BinaryLogarithm.negative(of: hash), weight: UInt64(candidate.weight))
    }

    /// By logarithm ÷ weight, then the hash, then the name: a total order, and among equal weights that of the hashes, as a
    /// greater hash has no greater logarithm. The products stay below 2^38 × 1000.
    @inline(__always)
    private static func precedes(_ left: Draw, _ right: Draw, _ candidates: [Candidate]) -> Bool {
        if left.weight != right.weight {
            let (one, other) = (left.logarithm * right.weight, right.logarithm * left.weight)
            if one != other { return one < other }
        }
        if left.hash != right.hash { return left.hash > right.hash }
        // One in 2^64; the name keeps the order the same everywhere even then.
        return candidates[left.index].name < candidates[right.index].name
    }

    /// One bijective mix (Stafford's variant 13 of MurmurHash3's finaliser, as in SplitMix64) of two keyed hashes:
    /// every bit of the input reaches every bit of the result.
    @inline(__always)
    private func mix(_ bits: UInt64) -> UInt64 {
        var value = bits
        value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
        return value ^ value >> 31
    }
}
