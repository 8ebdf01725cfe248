/// One life of a node: its name and a number that no other life of any node has, and that rises.
///
/// Written `NAME.NUMBER`. A name is 1–128 bytes of `[A-Za-z0-9_.:@/-]`, so that it can stand in a key, in a hash tag and
/// in a space-separated header.
package struct Incarnation: Hashable, Sendable, Comparable, CustomStringConvertible {
    package static let maximumNameLength = 128

    package let name: String
    package let number: Int64

    package init?(name: String, number: Int64) {
        guard Self.isValid(name: name), number > 0 else { return nil }
        self.name = name
        self.number = number
    }

    package init?(_ text: String) {
        guard let dot = text.lastIndex(of: ".") else { return nil }
        let digits = text[text.index(after: dot)...]
        guard let number = Int64(digits), String(number) == digits else { return nil }
        self.init(name: String(text[..<dot]), number: number)
    }

    package var description: String { "\(name).\(number)" }

    package static func < (left: Incarnation, right: Incarnation) -> Bool {
        (left.name, left.number) < (right.name, right.number)
    }

    package static func isValid(name: String) -> Bool {
        let utf8 = name.utf8
        return utf8.count >= 1 && utf8.count <= maximumNameLength
            && utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: ":"),
                    UInt8(ascii: "@"), UInt8(ascii: "/"), UInt8(ascii: "-"):
                    true
                default: false
                }
            }
    }
}
