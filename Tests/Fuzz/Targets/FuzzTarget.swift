#if DEBUG || FUZZING

/// What bytes from outside are given to. Each checks more than that nothing crashes: a run that ends is one in which
/// all that it claims held.
package enum FuzzTarget: String, CaseIterable, Sendable {
    /// WebSocket frames of a client and of a server, compressed messages too.
    case frames
    /// A client's message as JSON, and any JSON text.
    case json
    /// A client's message as protobuf.
    case protobuf
    /// Tokens and keys.
    case tokens
    /// The head and body of a request to the router and of a node's answer.
    case router
    /// A request to a node, up to the handshake.
    case node
    /// Redis's replies.
    case replies
    /// What channels and logs in Redis hold.
    case relay
    /// Names that users choose, and the keys that are made of them.
    case names
    /// Settings as text.
    case configuration

    /// - Throws: when something does not hold that must hold for any bytes.
    package func run(_ input: UnsafeRawBufferPointer) throws(FuzzFinding) {
        switch self {
        case .frames: try fuzzFrames(input)
        case .json: try fuzzJSON(input)
        case .protobuf: try fuzzProtobuf(input)
        case .tokens: try fuzzTokens(input)
        case .router: try fuzzRouter(input)
        case .node: try fuzzNode(input)
        case .replies: try fuzzReplies(input)
        case .relay: try fuzzRelay(input)
        case .names: try fuzzNames(input)
        case .configuration: try fuzzConfiguration(input)
        }
    }
}

extension FuzzTarget {
    /// What does not hold for these bytes; nil when all does.
    package func finding(in bytes: [UInt8]) -> FuzzFinding? {
        bytes.withUnsafeBytes { bytes -> FuzzFinding? in
            do throws(FuzzFinding) {
                try run(bytes)
                return nil
            } catch {
                return error
            }
        }
    }
}

/// A claim that some bytes broke.
package struct FuzzFinding: Error, CustomStringConvertible {
    package let description: String
}

func hold(_ claim: @autoclosure () -> String, _ condition: Bool) throws(FuzzFinding) {
    guard condition else { throw FuzzFinding(description: claim()) }
}

extension UnsafeRawBufferPointer {
    /// The first byte, which chooses how the rest is used; 0 without one.
    func splitFirst() -> (UInt8, UnsafeRawBufferPointer) {
        (first ?? 0, UnsafeRawBufferPointer(rebasing: dropFirst()))
    }

    /// Pieces of all lengths from one byte to the whole: the same for the same bytes.
    var pieces: [UnsafeRawBufferPointer] {
        var random: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in self { random = (random ^ UInt64(byte)) &* 0x100_0000_01b3 }
        random |= 1
        var pieces: [UnsafeRawBufferPointer] = []
        var start = 0
        while start < count {
            // xorshift64 (Marsaglia 2003)
            random ^= random << 13
            random ^= random >> 7
            random ^= random << 17
            let longest = 1 << (random >> 60)
            let length = Swift.min(1 + Int(random >> 32) & (longest - 1), count - start)
            pieces.append(UnsafeRawBufferPointer(rebasing: self[start..<start + length]))
            start += length
        }
        return pieces
    }

    /// Nil when the bytes are no UTF-8.
    var text: String? { String(validating: self, as: UTF8.self) }

    /// The parts between line ends, at most `count`; what is more stays in the last.
    func lines(_ count: Int) -> [UnsafeRawBufferPointer] {
        split(separator: UInt8(ascii: "\n"), maxSplits: count - 1, omittingEmptySubsequences: false)
            .map { UnsafeRawBufferPointer(rebasing: $0) }
    }
}

#endif
