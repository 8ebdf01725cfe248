import NIOCore
import ProtobufCodec
import WebSocketTransport

/// One text on its way into the batches of the shards: put into protobuf and compressed at most once each, whoever takes it.
struct Framing {
    private enum Made<Value> {
        case untried
        /// Compressed it is no shorter, or it makes no sense in the other encoding.
        case useless
        case made(Value)
    }

    private let text: UnsafeRawBufferPointer
    private let compressor: FrameCompressor?
    private let metrics: HubMetrics
    private var transcoded = Made<[UInt8]>.untried
    private var compressed = Made<ByteBuffer>.untried
    private var compressedTranscoded = Made<ByteBuffer>.untried

    /// - Parameter text: finished JSON.
    init(_ text: UnsafeRawBufferPointer, compressor: FrameCompressor?, metrics: HubMetrics) {
        self.text = text
        self.compressor = compressor
        self.metrics = metrics
    }

    /// Appends the frame in one format; an empty range, and nothing appended, where there is none.
    mutating func append(_ format: FrameFormat, to bytes: inout ByteBuffer) -> Range<Int> {
        let start = bytes.writerIndex
        switch format {
        case .json: WebSocketFrame.appendText(text, to: &bytes)
        case .protobuf:
            if let message = protobuf() {
                message.withUnsafeBytes { WebSocketFrame.append($0, opcode: .binary, to: &bytes) }
            }
        case .compressedJSON:
            if case .untried = compressed { compressed = Self.compress(text, .text, compressor) }
            guard case .made(let frame) = compressed else { return append(.json, to: &bytes) }
            bytes.writeImmutableBuffer(frame)
        case .compressedProtobuf:
            if case .untried = compressedTranscoded {
                compressedTranscoded =
                    protobuf().map { $0.withUnsafeBytes { Self.compress($0, .binary, compressor) } } ?? .useless
            }
            guard case .made(let frame) = compressedTranscoded else { return append(.protobuf, to: &bytes) }
            bytes.writeImmutableBuffer(frame)
        }
        return start..<bytes.writerIndex
    }

    private mutating func protobuf() -> [UInt8]? {
        if case .untried = transcoded {
            metrics.transcoded += 1
            transcoded = ServerFrames.protobuf(text).map { .made($0) } ?? .useless
            // What none of our nodes stored is nothing that this client could be told.
            if case .useless = transcoded { metrics.relayMalformed += 1 }
        }
        if case .made(let message) = transcoded { return message }
        return nil
    }

    private static func compress(
        _ message: UnsafeRawBufferPointer, _ opcode: WebSocketFrame.Opcode, _ compressor: FrameCompressor?
    ) -> Made<ByteBuffer> {
        var frame = ByteBuffer()
        return compressor?.append(message, opcode: opcode, to: &frame) == true ? .made(frame) : .useless
    }
}
