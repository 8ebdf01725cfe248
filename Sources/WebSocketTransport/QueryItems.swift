/// The pairs of a query in order, decoded as forms are (URL Standard, application/x-www-form-urlencoded).
package struct QueryItems {
    package private(set) var items: [(name: String, value: String)] = []
    /// Every percent-escape is whole, and all that they stand for is UTF-8. What is not was decoded as ``PercentEncoding``
    /// says.
    package private(set) var isValid = true

    /// - Parameter query: what stands behind the question mark.
    package init(_ query: Substring) {
        for pair in query.split(separator: "&") {
            let equals = pair.firstIndex(of: "=")
            let name = PercentEncoding.decode(equals.map { pair[..<$0] } ?? pair, plusIsSpace: true)
            let value = PercentEncoding.decode(
                equals.map { pair[pair.index(after: $0)...] } ?? "", plusIsSpace: true)
            isValid = isValid && name.isValid && value.isValid
            items.append((name.text, value.text))
        }
    }

    /// Of a request target; none where it has no query.
    package init(target: String) {
        let mark = target.utf8.firstIndex(of: UInt8(ascii: "?"))
        self.init(mark.map { target[target.utf8.index(after: $0)...] } ?? "")
    }

    /// The first of the name counts; nil also where that is empty.
    package subscript(name: String) -> String? {
        items.first { $0.name == name }.flatMap { $0.value.isEmpty ? nil : $0.value }
    }
}

/// RFC 3986 section 2.1.
enum PercentEncoding {
    /// A percent sign without two digits stays as it is, and bytes that are no UTF-8 become U+FFFD; either is not valid.
    static func decode(_ text: Substring, plusIsSpace: Bool) -> (text: String, isValid: Bool) {
        let (percent, plus) = (UInt8(ascii: "%"), UInt8(ascii: "+"))
        guard text.utf8.contains(where: { $0 == percent || ($0 == plus && plusIsSpace) }) else {
            return (String(text), true)
        }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.utf8.count)
        var isValid = true
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            if byte == plus, plusIsSpace {
                bytes.append(UInt8(ascii: " "))
            } else if byte != percent {
                bytes.append(byte)
            } else if let escaped = escaped(by: rest.prefix(2)) {
                bytes.append(escaped)
                rest = rest.dropFirst(2)
            } else {
                bytes.append(byte)
                isValid = false
            }
        }
        if let text = String(validating: bytes, as: UTF8.self) { return (text, isValid) }
        return (String(decoding: bytes, as: UTF8.self), false)
    }

    private static func escaped(by digits: Substring.UTF8View) -> UInt8? {
        guard digits.count == 2, let first = digits.first.flatMap(digit), let last = digits.last.flatMap(digit) else {
            return nil
        }
        return first << 4 | last
    }

    private static func digit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}
