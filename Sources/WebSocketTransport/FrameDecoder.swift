import NIOCore

/// Why a peer's bytes end its connection: the close code and a reason for the Close frame.
struct WebSocketFailure: Error, Equatable {
    let code: UInt16
    let reason: StaticString

    static func protocolError(_ reason: StaticString) -> WebSocketFailure {
        WebSocketFailure(code: WebSocketCloseCode.protocolError, reason: reason)
    }
    static let tooBig = WebSocketFailure(code: WebSocketCloseCode.messageTooBig, reason: "message too big")
    static let messageTimeout = protocolError("message not complete in time")
    static let outOfMemory = WebSocketFailure(code: WebSocketCloseCode.internalError, reason: "out of memory")
    static let invalidCompression = WebSocketFailure(
        code: WebSocketCloseCode.invalidPayload, reason: "invalid compressed data")
    static let invalidUTF8 = WebSocketFailure(code: WebSocketCloseCode.invalidPayload, reason: "invalid UTF-8")

    static func == (left: WebSocketFailure, right: WebSocketFailure) -> Bool {
        left.code == right.code && left.reason.description == right.reason.description
    }
}

/// The receiving half of RFC 6455 as a value: bytes in, messages and control frames out.
///
/// 1. Joins fragments, takes masks off, checks every rule of sections 5 and 7.4, and UTF-8 as the bytes arrive.
/// 2. A whole unfragmented data frame inside one input is unmasked into the caller's scratch buffer: one pass, no
///    allocation, and nothing of it stays here.
/// 3. Holds nothing between messages; within one, at most `maximumMessageBytes`.
/// 4. A compressed message (RFC 7692) is handed out as it came: expanding it, its UTF-8 and the limit of what it expands to
///    are the caller's.
struct FrameDecoder {
    enum Role { case server, client }

    private enum Assembly: UInt8 { case none, text, binary }

    private let rules: FrameHeader.Rules
    private var hasFailed = false
    private var inPayload = false
    private var assembly = Assembly.none
    private var isCompressed = false
    private var utf8 = UTF8Validator()
    private var frame = FrameHeader()
    private let maximumMessageBytes: Int
    /// Payload bytes of the current frame that have not arrived.
    private var remaining = 0
    private var partialHeader = PartialHeader()
    /// The fragments, or the part of a frame, that have arrived.
    private var message = ByteBuffer()
    /// The part of a control frame's payload that has arrived.
    private var control = ByteBuffer()

    init(role: Role, allowsCompression: Bool = false, maximumMessageBytes: Int) {
        self.rules = FrameHeader.Rules(expectsMask: role == .server, allowsCompression: allowsCompression)
        self.maximumMessageBytes = maximumMessageBytes
    }

    /// Nothing of a message or frame is held, and another decoder would do as well.
    var isAtRest: Bool { !hasFailed && !inPayload && assembly == .none && partialHeader.isEmpty }

    /// Bytes held for a message that is not complete.
    var bufferedBytes: Int { message.readableBytes + control.readableBytes }

    enum Action: Equatable {
        /// `input` is used up.
        case needsMoreBytes
        case text(ByteBuffer)
        case binary(ByteBuffer)
        /// `isText`: what it expands to has to be UTF-8.
        case compressed(ByteBuffer, isText: Bool)
        case ping(ByteBuffer)
        case pong
        /// 1005 when the frame carried none. Nothing that follows it is to be decoded.
        case close(code: UInt16, reason: String)
        /// The connection is to be failed (section 7.1.7); every later call answers `needsMoreBytes`.
        case fail(WebSocketFailure)
    }

    /// Consumes `input` up to the next thing to act on. Buffers in the answer may share `scratch`'s storage: they are
    /// good until the next call, or for ever at the price of a copy then.
    mutating func next(_ input: inout UnsafeRawBufferPointer, scratch: inout ByteBuffer) -> Action {
        guard !hasFailed else {
            input = UnsafeRawBufferPointer(start: nil, count: 0)
            return .needsMoreBytes
        }
        do {
            while true {
                if !inPayload {
                    guard try readHeader(&input) else { return .needsMoreBytes }
                }
                guard let action = try readPayload(&input, scratch: &scratch) else {
                    if inPayload || input.isEmpty { return .needsMoreBytes }
                    continue
                }
                return action
            }
        } catch {
            hasFailed = true
            message = ByteBuffer()
            control = ByteBuffer()
            return .fail(error)
        }
    }

    /// Whether a header was completed. Checks all that needs no payload.
    private mutating func readHeader(_ input: inout UnsafeRawBufferPointer) throws(WebSocketFailure) -> Bool {
        guard let header = try partialHeader.take(&input, rules: rules) else { return false }
        frame = header
        remaining = 0
        if !header.opcode.isControl {
            switch (header.opcode, assembly) {
            case (.continuation, .none):
                throw .protocolError("continuation without a message")
            case (.text, .text), (.text, .binary), (.binary, .text), (.binary, .binary):
                throw .protocolError("new message inside a fragmented one")
            default: break
            }
            guard header.payloadBytes <= UInt64(maximumMessageBytes - message.readableBytes) else { throw .tooBig }
        }
        remaining = Int(header.payloadBytes)
        inPayload = true
        return true
    }

    private mutating func readPayload(
        _ input: inout UnsafeRawBufferPointer,
        scratch: inout ByteBuffer
    ) throws(WebSocketFailure) -> Action? {
        let arrived = UnsafeRawBufferPointer(rebasing: input.prefix(remaining))
        input = UnsafeRawBufferPointer(rebasing: input.dropFirst(arrived.count))
        if frame.opcode.isControl {
            return try readControl(arrived, scratch: &scratch)
        }
        if assembly == .none {
            if frame.isFinal && arrived.count == remaining {
                inPayload = false
                return try wholeMessage(arrived, scratch: &scratch)
            }
            assembly = frame.opcode == .text ? .text : .binary
            isCompressed = frame.isCompressed
        }
        if message.writableBytes < remaining {
            message.reserveCapacity(minimumWritableBytes: remaining)
        }
        let isASCII = message.append(arrived, masking: frame.key)
        if assembly == .text, !isCompressed {
            try validate(message, last: arrived.count, isASCII: isASCII)
        }
        advance(by: arrived.count)
        guard remaining == 0 else { return nil }
        inPayload = false
        guard frame.isFinal else { return nil }
        return try finishMessage()
    }

    private mutating func advance(by count: Int) {
        remaining -= count
        frame.key = frame.key.advanced(by: count)
    }

    private mutating func validate(_ buffer: ByteBuffer, last count: Int, isASCII: Bool) throws(WebSocketFailure) {
        if isASCII && utf8.isAtBoundary { return }
        let valid = buffer.withUnsafeReadableBytes { bytes in
            utf8.accept(UnsafeRawBufferPointer(rebasing: bytes.suffix(count)))
        }
        guard valid else { throw .invalidUTF8 }
    }

    private mutating func wholeMessage(
        _ payload: UnsafeRawBufferPointer,
        scratch: inout ByteBuffer
    ) throws(WebSocketFailure) -> Action {
        scratch.clear()
        let isASCII = scratch.append(payload, masking: frame.key)
        if frame.isCompressed { return .compressed(scratch, isText: frame.opcode == .text) }
        guard frame.opcode == .text else { return .binary(scratch) }
        try validate(scratch, last: payload.count, isASCII: isASCII)
        guard utf8.isAtBoundary else { throw .invalidUTF8 }
        return .text(scratch)
    }

    private mutating func finishMessage() throws(WebSocketFailure) -> Action {
        let whole = message
        let kind = assembly
        message = ByteBuffer()
        assembly = .none
        if isCompressed { return .compressed(whole, isText: kind == .text) }
        guard kind == .text else { return .binary(whole) }
        guard utf8.isAtBoundary else { throw .invalidUTF8 }
        return .text(whole)
    }

    private mutating func readControl(
        _ arrived: UnsafeRawBufferPointer,
        scratch: inout ByteBuffer
    ) throws(WebSocketFailure) -> Action? {
        if control.readableBytes == 0 && arrived.count == remaining {
            inPayload = false
            scratch.clear()
            _ = scratch.append(arrived, masking: frame.key)
            return try controlAction(scratch)
        }
        _ = control.append(arrived, masking: frame.key)
        advance(by: arrived.count)
        guard remaining == 0 else { return nil }
        inPayload = false
        let whole = control
        control = ByteBuffer()
        return try controlAction(whole)
    }

    private mutating func controlAction(_ payload: ByteBuffer) throws(WebSocketFailure) -> Action {
        switch frame.opcode {
        case .ping: return .ping(payload)
        case .pong: return .pong
        default: return try closeAction(payload)
        }
    }

    /// Section 5.5.1 and 7.4: no payload at all, or a code that may stand on the wire and a reason in UTF-8.
    private func closeAction(_ payload: ByteBuffer) throws(WebSocketFailure) -> Action {
        var payload = payload
        guard payload.readableBytes > 0 else { return .close(code: WebSocketCloseCode.noStatus, reason: "") }
        guard let code = payload.readInteger(as: UInt16.self) else { throw .protocolError("close payload of one byte") }
        guard WebSocketCloseCode.isAllowedOnTheWire(code) else { throw .protocolError("invalid close code") }
        guard UTF8Validator.isValid(payload) else { throw .invalidUTF8 }
        return .close(code: code, reason: String(buffer: payload))
    }
}
