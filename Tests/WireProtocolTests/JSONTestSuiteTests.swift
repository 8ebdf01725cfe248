import Foundation
import TestSupport
import Testing
import WireProtocol

/// The codec against JSONTestSuite: a text alone, as a whole frame, and as a value inside a message. What is not UTF-8
/// never reaches the codec (the transport ends the connection with 1007), and is refused here by that.
@Suite("JSONTestSuite")
struct JSONTestSuiteTests {
    private func isJSON(_ bytes: [UInt8]) -> Bool {
        String(validating: bytes, as: UTF8.self) != nil
            && bytes.withUnsafeBytes { (try? JSONScanner.scanText($0)) != nil }
    }

    /// The number of the error that the frame is answered with; 1007 is the transport's close code, nil a message taken.
    private func errorCode(_ frame: [UInt8]) -> Int? {
        guard String(validating: frame, as: UTF8.self) != nil else { return 1007 }
        return frame.withUnsafeBytes { bytes in
            do throws(ClientMessageError) {
                _ = try ClientMessage(decoding: bytes)
                return nil
            } catch {
                return error.error.code.rawValue
            }
        }
    }

    private func message(_ field: String, _ value: [UInt8]) -> [UInt8] {
        Array(#"{"type":"message","id":"7","room":"r","text":"t","\#(field)":"#.utf8) + value + [UInt8(ascii: "}")]
    }

    @Test("all 318 cases are here")
    func whole() {
        #expect(JSONTestCase.accepted.count == 95)
        #expect(JSONTestCase.refused.count == 188)
        #expect(JSONTestCase.either.count == 35)
    }

    @Test(
        "what must be accepted is: alone, as data, and in a field that nothing reads", arguments: JSONTestCase.accepted)
    func accepted(testCase: JSONTestCase) {
        #expect(isJSON(testCase.bytes))
        for field in ["data", "x"] { #expect(errorCode(message(field, testCase.bytes)) == nil) }
        // A frame is one object with a type, which no case has.
        let isObject = testCase.bytes.first { !" \n\r\t".utf8.contains($0) } == UInt8(ascii: "{")
        #expect(errorCode(testCase.bytes) == (isObject ? 102 : 100))
    }

    @Test(
        "what must be refused is, with error 100, or 104 where it is nested too deep to tell: alone, as a frame, in any field",
        arguments: JSONTestCase.refused)
    func refused(testCase: JSONTestCase) {
        #expect(!isJSON(testCase.bytes))
        #expect(errorCode(testCase.bytes) == (testCase.isUTF8 ? 100 : 1007))
        let isDeep = testCase.bytes.count > 10_000
        for field in ["data", "text", "room", "type", "id", "x"] {
            #expect(errorCode(message(field, testCase.bytes)) == (testCase.isUTF8 ? isDeep ? 104 : 100 : 1007))
        }
    }

    @Test(
        "of what may be either, numbers of any size and lone surrogates are taken, all else is refused",
        arguments: JSONTestCase.either)
    func either(testCase: JSONTestCase) {
        let expected: Int?
        switch testCase.name {
        case "i_structure_500_nested_arrays": expected = 104
        case "i_structure_UTF-8_BOM_empty_object": expected = 100
        default: expected = testCase.isUTF8 ? nil : 1007
        }
        #expect(errorCode(message("data", testCase.bytes)) == expected)
        #expect(isJSON(testCase.bytes) == (expected == nil))
    }

    /// What others get of a message whose `data` is `value`, by the three ways that a payload is spliced into a frame.
    private func frames(data value: [UInt8]) throws -> [[UInt8]] {
        let user = try UserName(validating: #"al"ice"#)
        let room = try RoomName(validating: "r")
        let body = try message("data", value).withUnsafeBytes { bytes in
            guard case .message(_, let payload) = try ClientMessage(decoding: bytes).body else { return [UInt8]() }
            return MessageText.body(from: user, payload: payload, in: bytes)
        }
        let element = MessageText.element(seq: 1, tag: "aaaa", body: body, ts: 2, rawID: "7")
        return [
            MessageText.frame(room: room, epoch: "e", seq: 1, tag: "aaaa", body: body, ts: 2, rawID: "7"),
            element,
            ServerMessage.history(room: room, id: nil, epoch: "e", messages: [element], more: false),
        ]
    }

    @Test(
        "what is spliced into a frame is valid JSON for others, with the same bytes and the same value",
        arguments: JSONTestCase.accepted)
    func spliced(testCase: JSONTestCase) throws {
        let text = String(decoding: testCase.bytes, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
        let value = try JSONSerialization.jsonObject(with: Data(testCase.bytes), options: .fragmentsAllowed)
        for frame in try frames(data: testCase.bytes) {
            #expect(String(decoding: frame, as: UTF8.self).contains(#","data":\#(text),"id""#))
            let object = try #require(try JSONSerialization.jsonObject(with: Data(frame)) as? [String: Any])
            let message = (object["messages"] as? [[String: Any]])?.first ?? object
            #expect(message["from"] as? String == #"al"ice"#)
            #expect(message["text"] as? String == "t")
            let heard = try #require(message["data"] as? NSObject)
            #expect(heard == value as? NSObject)
        }
    }

    @Test(
        "what another parser may not take is passed on byte for byte: lone surrogates, numbers beyond any type",
        arguments: JSONTestCase.either.filter { $0.isUTF8 && !$0.name.hasPrefix("i_structure") })
    func splicedAsItIs(testCase: JSONTestCase) throws {
        for frame in try frames(data: testCase.bytes) {
            let text = String(decoding: testCase.bytes, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
            #expect(String(decoding: frame, as: UTF8.self).contains(#","data":\#(text),"id""#))
            #expect(isJSON(frame))
        }
    }

    /// The verdict of the tests' own parser; none where it stops at one of two things that grammar allows.
    private func isJSONToAnother(_ bytes: [UInt8]) -> Bool? {
        do {
            _ = try JSON(parsing: bytes[...])
            return true
        } catch let refusal as JSON.Malformed
            where ["surrogate pair", " twice"].contains(where: refusal.description.contains)
        {
            return nil
        } catch {
            return false
        }
    }

    @Test("another parser takes and refuses the same when any byte of an accepted text is lost or another one")
    func mutated() {
        let others = [nil] + Array("\"\\{}[],:0-+.eEutn/ \n\u{1}".utf8).map(Optional.init)
        var verdicts = [true: 0, false: 0]
        for testCase in JSONTestCase.accepted where testCase.bytes.count < 50 {
            for index in testCase.bytes.indices {
                for other in others {
                    var bytes = testCase.bytes
                    bytes.replaceSubrange(index...index, with: other.map { [$0] } ?? [])
                    let verdict = isJSON(bytes)
                    verdicts[verdict, default: 0] += 1
                    if let other = isJSONToAnother(bytes), other != verdict {
                        Issue.record("\(verdict): \(String(decoding: bytes, as: UTF8.self).debugDescription)")
                    }
                }
            }
        }
        #expect(verdicts.values.allSatisfy { $0 > 1000 }, "\(verdicts)")
    }
}
