#if DEBUG || FUZZING
import NIOCore

@testable import WebSocketTransport

/// The first byte: role, compression, and how large a message may be; then what a peer sends.
///
/// 1. What is decoded does not depend on how the bytes come in.
/// 2. No more is held than one message may have; no step is without progress.
/// 3. What was decoded, encoded and decoded again, is the same.
/// 4. A message expands to no more than the limit, whatever was expanded before it; compressed anew it is the same.
func fuzzFrames(_ input: UnsafeRawBufferPointer) throws(FuzzFinding) {
    let (choice, bytes) = input.splitFirst()
    let peer = FramePeer(
        role: choice & 1 == 0 ? .server : .client, allowsCompression: choice & 2 != 0,
        limit: choice & 4 == 0 ? 4096 : 64)
    let actions = try peer.actions(of: [bytes])
    try hold("the same frames in pieces are the same actions", actions == peer.actions(of: bytes.pieces))
    for action in actions { try peer.encodeAgain(action) }
    try peer.expand(actions)
}

private struct FramePeer {
    let role: FrameDecoder.Role
    let allowsCompression: Bool
    let limit: Int

    func actions(of pieces: [UnsafeRawBufferPointer]) throws(FuzzFinding) -> [FrameDecoder.Action] {
        var decoder = FrameDecoder(role: role, allowsCompression: allowsCompression, maximumMessageBytes: limit)
        var scratch = ByteBuffer()
        var actions: [FrameDecoder.Action] = []
        for piece in pieces {
            var rest = piece
            while true {
                let before = rest.count
                let action = decoder.next(&rest, scratch: &scratch)
                try hold("a decoder holds one message at most", decoder.bufferedBytes <= limit + 125)
                if action == .needsMoreBytes {
                    try hold("all bytes are taken before more are asked for", rest.isEmpty)
                    break
                }
                actions.append(action)
                if case .close = action { return actions }
                if case .fail = action { continue }
                try hold("each frame takes bytes", rest.count < before)
            }
        }
        return actions
    }

    func encodeAgain(_ action: FrameDecoder.Action) throws(FuzzFinding) {
        let frame: (WebSocketFrame.Opcode, ByteBuffer)? =
            switch action {
            case .text(let payload): (.text, payload)
            case .binary(let payload): (.binary, payload)
            case .ping(let payload): (.ping, payload)
            case .close(WebSocketCloseCode.noStatus, _): (.close, ByteBuffer())
            case .close(let code, let reason): (.close, WebSocketFrame.closePayload(code: code, reason: reason))
            case .needsMoreBytes, .compressed, .pong, .fail: nil
            }
        guard let (opcode, payload) = frame else { return }
        var encoded = ByteBuffer()
        payload.withUnsafeReadableBytes { bytes in
            switch role {
            case .client: WebSocketFrame.append(bytes, opcode: opcode, to: &encoded)
            case .server:
                WebSocketFrame.append(bytes, opcode: opcode, masking: MaskingKey(word: 0xA1B2_C3D4), to: &encoded)
            }
        }
        let again = try decode(encoded)
        try hold("a frame of what was decoded decodes to it", again == [action])
    }

    private func decode(_ buffer: ByteBuffer) throws(FuzzFinding) -> [FrameDecoder.Action] {
        let outcome = buffer.withUnsafeReadableBytes { bytes -> Result<[FrameDecoder.Action], FuzzFinding> in
            do throws(FuzzFinding) { return .success(try actions(of: [bytes])) } catch { return .failure(error) }
        }
        return try outcome.get()
    }

    func expand(_ actions: [FrameDecoder.Action]) throws(FuzzFinding) {
        guard
            actions.contains(where: { if case .compressed = $0 { true } else { false } }),
            let shared = MessageInflater()
        else { return }
        for case .compressed(let payload, let isText) in actions {
            let message = try expanded(payload, by: shared)
            guard let fresh = MessageInflater() else { return }
            try hold("nothing of a message is left for the next", try expanded(payload, by: fresh) == message)
            if case .success(let message) = message { try compressAgain(message, isText: isText) }
        }
    }

    private func expanded(
        _ payload: ByteBuffer, by inflater: MessageInflater
    ) throws(FuzzFinding) -> Result<ByteBuffer, WebSocketFailure> {
        var message = ByteBuffer()
        do throws(WebSocketFailure) {
            try inflater.expand(payload, limit: limit, into: &message)
        } catch {
            try hold("a bomb is not expanded", message.readableBytes <= limit + 1)
            return .failure(error)
        }
        try hold("a message expands to the limit at most", message.readableBytes <= limit)
        return .success(message)
    }

    private func compressAgain(_ message: ByteBuffer, isText: Bool) throws(FuzzFinding) {
        guard message.readableBytes >= FrameCompressor.minimumBytes, let compressor = FrameCompressor() else {
            return
        }
        var encoded = ByteBuffer()
        let isShorter = message.withUnsafeReadableBytes {
            compressor.append($0, opcode: isText ? .text : .binary, to: &encoded)
        }
        guard isShorter else { return }
        let client = FramePeer(role: .client, allowsCompression: true, limit: limit)
        guard case .compressed(let payload, isText)? = try client.decode(encoded).first,
            let inflater = MessageInflater()
        else { throw FuzzFinding(description: "a compressed frame decodes to a compressed message") }
        try hold(
            "what is compressed expands to itself", try client.expanded(payload, by: inflater) == .success(message))
    }
}
#endif
