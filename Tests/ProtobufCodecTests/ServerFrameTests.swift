import Foundation
import ProtobufCodec
import TestSupport
import Testing
import WireProtocol

@Suite("What a server says in martlet.v1.protobuf")
struct ServerFrameTests {
    private func transcoded(_ json: String) throws -> JSON {
        let frame = try #require(Array(json.utf8).withUnsafeBytes(ServerFrames.protobuf), "\(json)")
        return try ProtobufBridge.decode(frame)
    }

    @Test("every server example of the docs says the same in protobuf")
    func examplesSayTheSame() throws {
        let examples =
            try examples("<") + [
                #"{"type":"message","room":"r","seq":1,"tag":"a","from":"b","data":null,"ts":1}"#,
                #"{"type":"message","room":"r","seq":1,"tag":"a","from":"b","text":"","binary":"AP8Q","ts":1}"#,
                #"{"type":"joined","room":"r","epoch":"e","seq":0,"recovered":false,"pv":1,"count":0,"members":[]}"#,
                #"{"type":"history","room":"r","messages":[],"more":false}"#,
            ]
        #expect(examples.count > 25)
        for example in examples {
            #expect(try transcoded(example) == JSON(parsing: example))
        }
    }

    @Test("a lone surrogate, which protobuf has no place for, is U+FFFD; in data it stays as it was written")
    func loneSurrogates() throws {
        let json =
            #"{"type":"message","room":"r","seq":1,"tag":"a","from":"b","text":"\ud800x\udc00\ud83d\ude00","ts":1}"#
        #expect(try transcoded(json)["text"]?.string == "\u{FFFD}x\u{FFFD}😀")
    }

    @Test("data as deep as a client may send it reaches others, in history too")
    func deep() throws {
        let data = String(repeating: "[", count: 63) + String(repeating: "]", count: 63)
        let message = #"{"seq":1,"tag":"a","from":"b","data":\#(data),"ts":1}"#
        let history = try transcoded(#"{"type":"history","room":"r","messages":[\#(message)],"more":false}"#)
        #expect(history["messages"]?.array?.first?["data"]?.text == data)
    }

    @Test("base64 with escaped slashes is base64")
    func escapedBase64() throws {
        let json = #"{"type":"message","room":"r","seq":1,"tag":"a","from":"b","binary":"\/\/\/\/","ts":1}"#
        #expect(try transcoded(json)["binary"]?.string == "////")
    }

    @Test(
        "what no server says is no frame", arguments: ["", "x", "[]", "{}", #"{"type":"shout"}"#, #"{"type":"left""#])
    func noFrame(_ json: String) {
        #expect(Array(json.utf8).withUnsafeBytes(ServerFrames.protobuf) == nil)
    }
}

@Suite("Base64 in JSON")
struct Base64Tests {
    @Test("it is that of Foundation, and comes back")
    func sameAsFoundation() {
        for count in 0..<70 {
            let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 89 &+ count &* 31) }
            var text: [UInt8] = []
            bytes.withUnsafeBytes { Base64.append($0, to: &text) }
            #expect(String(decoding: text, as: UTF8.self) == Data(bytes).base64EncodedString())
            #expect(text.withUnsafeBytes(Base64.decode) == bytes)
        }
    }

    @Test(
        "one value has one spelling",
        arguments: [
            "A", "AA", "AAA", "AA=", "AB==", "AAB=", "A===", "====", "AA==AAAA", "AA=A", "A-AA", "AA A", "AAA\n",
        ])
    func strict(_ text: String) throws {
        #expect(Array(text.utf8).withUnsafeBytes(Base64.decode) == nil)
        let message = #"{"type":"message","room":"r","binary":"\#(text.replacing("\n", with: "\\n"))"}"#
        let error = #expect(throws: ClientMessageError.self) {
            try Array(message.utf8).withUnsafeBytes { try ClientMessage(decoding: $0) }
        }
        #expect(error?.error.code == .invalidField)
    }
}
