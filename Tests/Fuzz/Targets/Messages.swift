#if DEBUG || FUZZING
@testable import MartletClient
@testable import ProtobufCodec
import SwiftProtobuf
@testable import WireProtocol

/// A text that a client sent.
///
/// 1. The scanner and another reading of RFC 8259 agree on what is JSON, and on what is nested too deeply.
/// 2. A text without its white space is the same value, and has no line end.
/// 3. A string, written anew, reads the same.
/// 4. What is decoded as a message was JSON, and its payload is JSON that may be put into another object.
func fuzzJSON(_ bytes: UnsafeRawBufferPointer) throws(FuzzFinding) {
    // The transport lets no other bytes through.
    guard bytes.text != nil else { return }
    let verdict = JSONReference.verdict(bytes, maximumDepth: JSONScanner.maximumDepth)
    switch scan(bytes) {
    case .success(let value):
        try hold("what the scanner takes is JSON", verdict == .text)
        try checkMinified(value, bytes)
        try checkString(value, bytes)
    case .failure(.tooDeep): try hold("what is too deep is so", verdict == .deeper)
    case .failure: try hold("what the scanner refuses is no JSON", verdict == .other)
    }
    try checkMessage(bytes, isJSON: verdict == .text)
    _ = ServerFrame(decoding: Array(bytes))
    if let frame = ServerFrames.protobuf(bytes) {
        try hold("a frame in protobuf can be read", (try? Martlet_V1_ServerFrame(serializedBytes: frame)) != nil)
    }
}

private func scan(_ bytes: UnsafeRawBufferPointer, depth: Int = 0) -> Result<JSONValue, JSONError> {
    do throws(JSONError) { return .success(try JSONScanner.scanText(bytes, depth: depth)) } catch {
        return .failure(error)
    }
}

private func checkMinified(_ value: JSONValue, _ bytes: UnsafeRawBufferPointer) throws(FuzzFinding) {
    let minified = Array(JSONText.minified(value.range, in: bytes).utf8)
    let again = minified.withUnsafeBytes { small -> Bool in
        guard case .success(let same) = scan(small) else { return false }
        return same.kind == value.kind && same.range == 0..<small.count
            && JSONText.minified(same.range, in: small).utf8.elementsEqual(minified)
    }
    try hold("a text without its white space is the same value", again)
    try hold("no line end is left", !minified.contains(0x0A) && !minified.contains(0x0D))
}

private func checkString(_ value: JSONValue, _ bytes: UnsafeRawBufferPointer) throws(FuzzFinding) {
    guard let string = JSONText.string(value, in: bytes, replacingLoneSurrogates: "\u{FFFD}") else {
        return try hold("every string can be read", !value.isString)
    }
    let same = Array(JSONWriter.literal(string).utf8).withUnsafeBytes { written -> Bool in
        guard case .success(let value) = scan(written) else { return false }
        return JSONText.string(value, in: written) == string
    }
    try hold("a string that is written anew reads the same", same)
}

private func checkMessage(_ bytes: UnsafeRawBufferPointer, isJSON: Bool) throws(FuzzFinding) {
    switch decode(bytes) {
    case .success(let message):
        try hold("a message is JSON", isJSON)
        try check(message, payloadIn: bytes)
    case .failure(let refusal):
        try hold("no JSON is no message", isJSON || [.malformedJSON, .tooLarge].contains(refusal.error.code))
        try hold("an error repeats little", (refusal.room?.utf8.count ?? 0) <= ClientMessageError.maximumRoomLength)
    }
}

private func decode(_ bytes: UnsafeRawBufferPointer) -> Result<ClientMessage, ClientMessageError> {
    do throws(ClientMessageError) { return .success(try ClientMessage(decoding: bytes)) } catch {
        return .failure(error)
    }
}

/// What must be so of any message, whichever codec it came by.
private func check(_ message: ClientMessage, payloadIn bytes: UnsafeRawBufferPointer) throws(FuzzFinding) {
    try hold("an id is short", (1...ClientMessage.maximumIDLength).contains(message.id?.utf8.count ?? 1))
    switch message.body {
    case .message(_, let payload), .direct(_, let payload):
        try hold("a message says something", payload != ClientMessage.Payload())
        for range in [payload.text, payload.data, payload.binary].compactMap(\.self) {
            let part = UnsafeRawBufferPointer(rebasing: bytes[range])
            guard case .success(let value) = scan(part, depth: 1) else {
                throw FuzzFinding(description: "a payload is JSON by itself")
            }
            if range == payload.text || range == payload.binary { try hold("it is a string", value.isString) }
        }
    case .join(let joins):
        try hold("joins are bounded", (1...ClientMessage.maximumJoinsPerFrame).contains(joins.count))
    case .auth(let auth):
        if let info = auth.info {
            try hold(
                "info is one line", !info.utf8.contains(0x0A) && info.utf8.count <= ClientMessage.maximumInfoLength)
        }
        try hold("rooms are bounded", auth.rooms.count <= ClientMessage.maximumJoinsPerFrame)
    case .history(_, _, let limit):
        try hold("pages are bounded", (1...ClientMessage.maximumHistoryLimit).contains(limit))
    case .leave, .typing, .presence, .status, .ping: break
    }
}

/// One binary frame of a client.
///
/// 1. What is decoded keeps the rules of `fuzzJSON`, and its limit.
/// 2. The decoder of JSON takes the same message, written as JSON, and reads the same payload out of it.
func fuzzProtobuf(_ bytes: UnsafeRawBufferPointer) throws(FuzzFinding) {
    let limit = 4096
    guard let (message, payload) = try? ClientMessage.decode(protobuf: bytes, limit: limit) else { return }
    try hold("a payload keeps its limit", payload.count <= limit)
    let finding = payload.withUnsafeBytes { payload -> FuzzFinding? in
        do throws(FuzzFinding) {
            try check(message, payloadIn: payload)
            return nil
        } catch { return error }
    }
    if let finding { throw finding }
    guard case .message(let room, let ranges) = message.body else { return }
    var text = Array("{\"type\":\"message\",\"room\":\"\(room)\"".utf8)
    var parts: [ArraySlice<UInt8>] = []
    for (name, range) in [("text", ranges.text), ("data", ranges.data), ("binary", ranges.binary)] {
        guard let range else { continue }
        parts.append(payload[range])
        text += Array(",\"\(name)\":".utf8) + payload[range]
    }
    text.append(UInt8(ascii: "}"))
    let isSame = text.withUnsafeBytes { json -> Bool in
        guard let same = try? ClientMessage(decoding: json), case .message(room, let ranges) = same.body else {
            return false
        }
        let read = [ranges.text, ranges.data, ranges.binary].compactMap { $0.map { Array(json[$0]) } }
        return read.elementsEqual(parts) { trimmed($1).elementsEqual($0) }
    }
    try hold("both codecs take the same message", isSame)
}

/// Without the white space around a text, which is no part of its value.
private func trimmed(_ text: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
    func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 || byte == 0x0A || byte == 0x0D }
    var text = text.drop(while: isBlank)
    while let last = text.last, isBlank(last) { text.removeLast() }
    return text
}
#endif
