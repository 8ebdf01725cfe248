/// Rendezvous (highest random weight) hashing: Thaler and Ravishankar, "Using name-based mappings to increase hit
/// rates" (1998), with a key of 128 bits.
///
/// 1. The order of candidates for a key is a pure function of the hash key, the affinity key and the candidates'
///    names: every router with the same secret gives the same one, in whatever order it learnt of them.
/// 2. When a candidate goes, only the keys that had it first move, evenly over the others; when one comes, it takes
///    its share evenly from the others, and no key moves between those.
/// 3. Who does not know the hash key cannot choose affinity keys that meet on one candidate.
package struct RendezvousHash: Sendable {
    private let keys: SipHash
    private let names: SipHash

    package init(key: (UInt64, UInt64)) {
        keys = SipHash(key: key)
        // Another key for names, so that an affinity key that equals a name is nothing special.
        names = SipHash(key: (key.1 ^ 0x6e6f_6465_6e6f_6465, key.0))
    }

    /// A candidate with its name's hash, so that a pick hashes no name.
    package struct Candidate: Sendable, Hashable {
        package let name: String
        fileprivate let hash: UInt64
    }

    package func candidate(_ name: String) -> Candidate {
        Candidate(name: name, hash: names.hash(name.utf8))
    }

    /// The candidates from the first choice to the last resort.
    package func order(of candidates: [String], for key: some Collection<UInt8>) -> [String] {
        let prepared = candidates.map { candidate($0) }
        return order(of: prepared, for: key).map { candidates[$0] }
    }

    /// As above, as indices into `candidates`.
    package func order(of candidates: [Candidate], for key: some Collection<UInt8>) -> [Int] {
        let hash = keys.hash(key)
        let weighed = candidates.indices.map { (index: $0, weight: weight(candidates[$0], hash)) }
        return weighed.sorted { left, right in
            // Equal weights are one in 2^64; the name keeps the order the same everywhere even then.
            left.weight != right.weight
                ? left.weight > right.weight : candidates[left.index].name < candidates[right.index].name
        }.map(\.index)
    }

    /// The index of the first choice, in O(n) and without a sort; nil without candidates.
    package func first(of candidates: [Candidate], for key: some Collection<UInt8>) -> Int? {
        let hash = keys.hash(key)
        var best: (index: Int, weight: UInt64)?
        for (index, candidate) in candidates.enumerated() {
            let weight = weight(candidate, hash)
            guard let current = best else {
                best = (index, weight)
                continue
            }
            if weight > current.weight
                || (weight == current.weight && candidate.name < candidates[current.index].name)
            {
                best = (index, weight)
            }
        }
        return best?.index
    }

    /// One bijective mix (Stafford's variant 13 of MurmurHash3's finaliser, as in SplitMix64) of two keyed hashes:
    /// every bit of the input reaches every bit of the weight.
    @inline(__always)
    private func weight(_ candidate: Candidate, _ key: UInt64) -> UInt64 {
        var value = candidate.hash ^ key
        value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
        return value ^ value >> 31
    }
}
