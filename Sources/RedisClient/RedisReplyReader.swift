import Glibc
import HiredisShim
import NIOCore

/// Parses one connection's bytes with hiredis (through `HiredisShim`).
///
/// 1. Takes bytes, split anywhere, and steps from reply to reply.
/// 2. Hands out a reply as a value, or, for what a subscription receives, as ranges of bytes without a value.
///
/// Not thread-safe: confined to its connection's event loop.
final class RedisReplyReader {
    enum Step: Equatable {
        /// A whole reply can be read until the next call of `feed` or `next`.
        case reply
        case incomplete
        /// The bytes are not RESP, or the reply is too large; nothing can be read from here on.
        case malformed(String)
    }

    /// Feed at most this much at a time: hiredis moves what is left of its buffer to the front after each KiB that was
    /// read.
    static let sliceLength = 16 * 1024
    /// Redis' own limit of one bulk is 512 MiB; nothing here asks for replies near that.
    static let maximumReplyBytes = 64 * 1024 * 1024
    /// Deeper arrays are malformed. hiredis 0.14 stops at 7, hiredis 1.x does not.
    private static let maximumDepth = 32

    private let reader: OpaquePointer

    /// Nil when there is no memory.
    init?(maximumReplyBytes: Int = RedisReplyReader.maximumReplyBytes) {
        guard let reader = hiredis_shim_reader_create(maximumReplyBytes) else { return nil }
        self.reader = reader
    }

    deinit {
        hiredis_shim_reader_free(reader)
    }

    /// Copies the bytes. A failure shows in the next step.
    func feed(_ bytes: UnsafeRawBufferPointer) {
        guard let base = bytes.baseAddress, !bytes.isEmpty else { return }
        _ = hiredis_shim_reader_feed(reader, base, bytes.count)
    }

    func next() -> Step {
        switch hiredis_shim_reader_next(reader) {
        case .reply: .reply
        case .incomplete: .incomplete
        case .malformed: .malformed(String(cString: hiredis_shim_reader_error(reader)))
        }
    }

    /// The current reply; nil when it is nested too deeply.
    func value() -> RESPValue? {
        let nodes = self.nodes
        guard let first = nodes.first else { return nil }
        // The common short replies need no buffer.
        switch first.kind {
        case .null: return .null
        case .integer: return .integer(first.integer)
        case .status: return .status(text(of: first))
        case .error: return .error(text(of: first))
        case .bulk, .array: break
        }
        let buffer = ByteBuffer(bytes: UnsafeRawBufferPointer(bytes))
        var index = 0
        return value(at: &index, of: nodes, in: buffer, depth: 0)
    }

    /// What a SUBSCRIBEd connection is sent: three elements, of which the first is a word and the second a channel
    /// ("message", channel, payload), ("subscribe", channel, how many).
    struct Push {
        let word: UnsafeRawBufferPointer
        let channel: UnsafeRawBufferPointer
        /// Empty when the third element is an integer.
        let payload: UnsafeRawBufferPointer

        func isWord(_ word: StaticString) -> Bool {
            isSame(self.word, UnsafeRawBufferPointer(start: word.utf8Start, count: word.utf8CodeUnitCount))
        }
    }

    /// The current reply as a push, when it has that shape. Its pointers end with the next call of `feed` or `next`.
    func push() -> Push? {
        let nodes = self.nodes
        guard nodes.count == 4, nodes[0].kind == .array, nodes[0].integer == 3,
            nodes[1].kind == .bulk, nodes[2].kind == .bulk
        else { return nil }
        return Push(word: range(of: nodes[1]), channel: range(of: nodes[2]), payload: range(of: nodes[3]))
    }

    private var nodes: UnsafeBufferPointer<HiredisShimNode> {
        UnsafeBufferPointer(
            start: hiredis_shim_reader_nodes(reader),
            count: hiredis_shim_reader_node_count(reader)
        )
    }

    private var bytes: UnsafeBufferPointer<UInt8> {
        UnsafeBufferPointer(
            start: hiredis_shim_reader_bytes(reader),
            count: hiredis_shim_reader_byte_count(reader)
        )
    }

    private func range(of node: HiredisShimNode) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(bytes)[node.offset..<node.offset + node.length])
    }

    private func text(of node: HiredisShimNode) -> String {
        String(decoding: range(of: node), as: UTF8.self)
    }

    private func value(
        at index: inout Int,
        of nodes: UnsafeBufferPointer<HiredisShimNode>,
        in buffer: ByteBuffer,
        depth: Int
    ) -> RESPValue? {
        guard index < nodes.count, depth <= Self.maximumDepth else { return nil }
        let node = nodes[index]
        index += 1
        switch node.kind {
        case .integer:
            return .integer(node.integer)
        case .status:
            return .status(text(of: node))
        case .error:
            return .error(text(of: node))
        case .bulk:
            return buffer.getSlice(at: node.offset, length: node.length).map { .bulk($0) }
        case .array:
            var elements: [RESPValue] = []
            elements.reserveCapacity(Int(min(node.integer, Int64(nodes.count - index))))
            for _ in 0..<node.integer {
                guard let element = value(at: &index, of: nodes, in: buffer, depth: depth + 1) else { return nil }
                elements.append(element)
            }
            return .array(elements)
        case .null:
            return .null
        }
    }
}

/// Whether both hold the same bytes; one look at the lengths for most that do not.
func isSame(_ bytes: UnsafeRawBufferPointer, _ other: UnsafeRawBufferPointer) -> Bool {
    guard bytes.count == other.count else { return false }
    guard let first = bytes.baseAddress, let second = other.baseAddress else { return true }
    return memcmp(first, second, bytes.count) == 0
}

func isSame(_ bytes: UnsafeRawBufferPointer, _ other: [UInt8]) -> Bool {
    bytes.count == other.count && other.withUnsafeBytes { isSame(bytes, $0) }
}
