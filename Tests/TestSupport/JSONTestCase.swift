import Foundation

/// One text of JSONTestSuite (Tests/JSONTestSuite/cases.txt).
package struct JSONTestCase: Sendable, CustomStringConvertible {
    /// `y_…`, `n_…` or `i_…`: to be accepted, to be refused, either.
    package let name: String
    package let bytes: [UInt8]

    package var description: String { name }
    package var isUTF8: Bool { String(validating: bytes, as: UTF8.self) != nil }

    package static let accepted = all.filter { $0.name.hasPrefix("y_") }
    package static let refused = all.filter { $0.name.hasPrefix("n_") }
    package static let either = all.filter { $0.name.hasPrefix("i_") }

    private static let all: [JSONTestCase] = {
        let file = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appending(path: "JSONTestSuite/cases.txt")
        guard let text = try? String(contentsOf: file, encoding: .utf8) else { return [] }
        return text.split(separator: "\n").filter { !$0.hasPrefix("#") }.map(JSONTestCase.init)
    }()

    private init(line: Substring) {
        let columns = line.split(separator: "\t", omittingEmptySubsequences: false)
        name = String(columns[0])
        let text = Self.decoded(columns[1])
        guard columns.count == 4, let times = Int(columns[2]) else {
            bytes = text
            return
        }
        bytes = Array(repeatElement(text, count: times).joined()) + Self.decoded(columns[3])
    }

    private static func decoded(_ text: Substring) -> [UInt8] {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            bytes.append(UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16) ?? 0)
            rest = rest.dropFirst(2)
        }
        return bytes
    }
}
