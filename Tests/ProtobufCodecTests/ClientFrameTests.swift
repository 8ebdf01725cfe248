import Foundation
import ProtobufCodec
import SwiftProtobuf
import TestSupport
import Testing
import WireProtocol

/// Each `>` or `<` example of docs/protocol.md, without the mark.
func examples(_ mark: String) throws -> [String] {
    let file = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appending(path: "docs/protocol.md")
    return try String(contentsOf: file, encoding: .utf8).split(separator: "\n")
        .filter { $0.hasPrefix(mark + " {") }.map { String($0.dropFirst(2)) }
}

@Suite("What a client of martlet.v1.protobuf may send")
struct ClientFrameTests {
    private static let limit = 65536

    private func decode(_ bytes: [UInt8], limit: Int = limit) throws(ClientMessageError) -> ClientMessage.Decoded {
        let result = bytes.withUnsafeBytes { bytes -> Result<ClientMessage.Decoded, ClientMessageError> in
            do throws(ClientMessageError) {
                return .success(try ClientMessage.decode(protobuf: bytes, limit: limit))
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    private func error(_ frame: (inout Martlet_V1_ClientFrame) -> Void) throws -> ClientMessageError? {
        var message = Martlet_V1_ClientFrame()
        frame(&message)
        let bytes: [UInt8] = try message.serializedBytes()
        do {
            _ = try decode(bytes)
            return nil
        } catch {
            return error
        }
    }

    /// What was asked, in words that do not depend on where a payload stands.
    private func words(_ message: ClientMessage, _ bytes: [UInt8]) throws -> String {
        func said(_ payload: ClientMessage.Payload) throws -> String {
            try [payload.text, payload.data, payload.binary].map { range in
                try range.map { try JSON(parsing: bytes[$0]).text } ?? "-"
            }.joined(separator: " ")
        }
        let body =
            switch message.body {
            case .message(let room, let payload): "message \(room) \(try said(payload))"
            case .direct(let user, let payload): "direct \(user) \(try said(payload))"
            default: "\(message.body)"
            }
        return "\(message.id ?? "-") \(body)"
    }

    @Test("every client example of the docs means the same in protobuf")
    func examplesMeanTheSame() throws {
        let examples =
            try examples(">") + [
                #"{"type":"message","room":"r","text":"\u0001\n\"\\é🐦","data":[1,{"a":null}],"binary":"AP8="}"#,
                #"{"type":"direct","to":"é","binary":""}"#, #"{"type":"typing","room":"r","typing":false}"#,
                #"{"type":"typing","room":"r"}"#, #"{"type":"join","room":"r","since":{"epoch":"e","seq":0}}"#,
            ]
        #expect(examples.count > 20)
        for example in examples {
            let bytes = Array(example.utf8)
            let json = try bytes.withUnsafeBytes { try ClientMessage(decoding: $0) }
            let protobuf = try decode(try ProtobufBridge.encode(JSON(parsing: example)))
            #expect(try words(protobuf.message, protobuf.payload) == words(json, bytes))
        }
    }

    @Test("data passes with the same bytes, text with those that JSON demands, binary in base64")
    func payload() throws {
        var frame = Martlet_V1_ClientFrame()
        frame.message.room = "r"
        frame.message.payload.text = "a\"\u{1}\né🐦"
        frame.message.payload.data = " {\"n\": 1e400,\n\"s\":\"\\ud800\"} "
        frame.message.payload.binary = Data([0, 255, 16])
        let (message, bytes) = try decode(try frame.serializedBytes())
        guard case .message(_, let payload) = message.body else { return #expect(Bool(false)) }
        let body = bytes.withUnsafeBytes {
            MessageText.body(from: try! UserName(validating: "bob"), payload: payload, in: $0)
        }
        #expect(
            String(decoding: body, as: UTF8.self)
                == "\"from\":\"bob\",\"text\":\"a\\\"\\u0001\\né🐦\",\"data\": {\"n\": 1e400,\n\"s\":\"\\ud800\"} "
                + ",\"binary\":\"AP8Q\"")
    }

    @Test("what is wrong has the number that it has in JSON, with the id and the room")
    func errors() throws {
        func check(
            _ code: WireError.Code, id: String? = "7", room: String? = nil,
            _ frame: (inout Martlet_V1_ClientFrame) -> Void
        ) throws {
            let error = try error {
                $0.id = "7"
                frame(&$0)
            }
            #expect(error?.error.code == code)
            #expect(error?.id == id)
            #expect(error?.room == room)
        }
        try check(.unknownType) { _ in }
        try check(.invalidField, id: nil) { ($0.id, $0.ping) = ("", .init()) }
        try check(.invalidField, id: nil) { ($0.id, $0.ping) = (String(repeating: "é", count: 33), .init()) }
        try check(.invalidField) { $0.join = .init() }
        try check(.invalidRoom, room: "a b") { $0.leave.room = "a b" }
        try check(.invalidRoom, room: nil) { $0.leave.room = String(repeating: "r", count: 300) }
        try check(.invalidRoom, room: "") { $0.presence = .init() }
        try check(.invalidField, room: "r") { $0.message.room = "r" }
        for data in ["", "{", "1 2", "{\"a\":}", "1,\"b\":2", "}"] {
            try check(.invalidField, room: "r") {
                $0.message.room = "r"
                $0.message.payload.data = data
            }
        }
        try check(.tooLarge, room: "r") {
            $0.message.room = "r"
            $0.message.payload.data = String(repeating: "[", count: 64) + String(repeating: "]", count: 64)
        }
        try check(.tooLarge, room: "r") {
            $0.message.room = "r"
            $0.message.payload.text = String(repeating: "\0", count: Self.limit / 6 + 1)
        }
        try check(.invalidUser) { $0.direct.payload.text = "x" }
        try check(.invalidField, room: "r") {
            $0.join.rooms = [.with { ($0.room, $0.since.seq) = ("r", -1) }]
        }
        try check(.invalidField, room: "r") {
            $0.join.rooms = [.with { ($0.room, $0.since.seq) = ("r", 1 << 53 + 1) }]
        }
        try check(.invalidField) { $0.history.limit = 0 }
        try check(.invalidField) { $0.history.before = -1 }
        try check(.invalidField) { $0.status = .init() }
        try check(.invalidField) { $0.status.status = .UNRECOGNIZED(9) }
        try check(.invalidField) { $0.auth.info = "[]" }
        try check(.invalidField) { $0.auth.client = "no spaces" }
        try check(.invalidField) { $0.auth.resume.session = "short" }
        try check(.invalidRoom, room: "general") { $0.auth.directs.rooms = [.with { $0.room = "general" }] }
        try check(.invalidField, room: "dm:a:b") { $0.auth.directs.rooms = [.with { $0.room = "dm:a:b" }] }
    }

    @Test("data is nested up to 63 levels, as in JSON")
    func depth() throws {
        let error = try error {
            $0.message.room = "r"
            $0.message.payload.data = String(repeating: "[", count: 63) + String(repeating: "]", count: 63)
        }
        #expect(error == nil)
    }

    @Test("what is no ClientFrame is error 118, and no bytes do harm", arguments: [1, 2, 3])
    func malformed(seed: UInt64) throws {
        for bytes: [UInt8] in [[0xFF], [0x0A, 5, 65], [0x0A, 1, 0xFF], Array("{\"type\":\"ping\"}".utf8)] {
            #expect(throws: ClientMessageError(error: WireError(.malformedProtobuf), id: nil, room: nil)) {
                try decode(bytes)
            }
        }
        var state = seed
        func random(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % bound
        }
        let frames = try examples(">").map { try ProtobufBridge.encode(JSON(parsing: $0)) }
        for _ in 0..<3000 {
            var frame = frames[random(frames.count)]
            for _ in 0...random(3) where !frame.isEmpty {
                frame[random(frame.count)] = UInt8(random(256))
                if random(4) == 0 { frame.removeLast(random(frame.count)) }
            }
            _ = try? decode(frame)
        }
    }

    @Test("unknown fields are skipped")
    func unknownFields() throws {
        let frame = try ProtobufBridge.encode(["type": "ping", "id": "7"]) + [0xFA, 0x3F, 1, 65]
        #expect(try decode(frame).message.id == "7")
    }
}
