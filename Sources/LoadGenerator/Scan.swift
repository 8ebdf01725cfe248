import CLinux
import Glibc

/// What the scenarios look at in a server's message, without parsing the rest of it. A quote inside a JSON string is
/// escaped, so no text can look like one of these keys.
struct Scan {
    let payload: UnsafeRawBufferPointer

    /// Whether the message is of this type; `type` comes first in all of them.
    func isType(_ type: StaticString) -> Bool {
        let start: StaticString = "{\"type\":\""
        let count = start.utf8CodeUnitCount + type.utf8CodeUnitCount
        guard payload.count > count, let base = payload.baseAddress else { return false }
        return memcmp(base, start.utf8Start, start.utf8CodeUnitCount) == 0
            && memcmp(base + start.utf8CodeUnitCount, type.utf8Start, type.utf8CodeUnitCount) == 0
            && payload[count] == UInt8(ascii: "\"")
    }

    var seq: Int64? { number(after: "\"seq\":") }
    var count: Int64? { number(after: "\"count\":") }
    var presenceVersion: Int64? { number(after: "\"pv\":") }
    /// The number that we gave as an `id`.
    var id: Int64? { number(after: "\"id\":\"") }

    /// Where a key was found in the message before: most likely it stands there again, which saves the search.
    struct Hint {
        fileprivate var seq = 0
        fileprivate var text = 0
        fileprivate var room = 0
        fileprivate var from = 0
    }

    func seq(_ hint: inout Hint) -> Int64? {
        end(of: "\"seq\":", near: &hint.seq).flatMap(number(at:))
    }

    /// What ``Text`` put into its text; nil when this is not one of its texts, whole.
    /// - Parameter bytes: the length of the text.
    func stamp(_ hint: inout Hint, bytes: Int) -> Text.Stamp? {
        guard let start = end(of: "\"text\":\"", near: &hint.text), let base = payload.baseAddress,
            payload.count > start + bytes, payload[start + bytes] == UInt8(ascii: "\""),
            let due = letters(start..<(start + 16)), let publisher = letters((start + 16)..<(start + 20)),
            let number = digits((start + 20)..<(start + 28))
        else { return nil }
        let rest = bytes - Text.stampBytes
        let isWhole = Text.filler.withUnsafeBytes { filler in
            filler.baseAddress.map { memcmp(base + start + Text.stampBytes, $0, rest) == 0 } ?? false
        }
        return isWhole ? Text.Stamp(due: due, publisher: Int(publisher), number: number) : nil
    }

    func isRoom(_ name: [UInt8], _ hint: inout Hint) -> Bool {
        end(of: "\"room\":\"", near: &hint.room).map { isString(name, at: $0) } ?? false
    }

    func isFrom(_ user: [UInt8], _ hint: inout Hint) -> Bool {
        end(of: "\"from\":\"", near: &hint.from).map { isString(user, at: $0) } ?? false
    }

    /// As it stands between its quotes.
    var from: [UInt8]? {
        end(of: "\"from\":\"").map { Array(payload[$0...].prefix { $0 != UInt8(ascii: "\"") }) }
    }

    private func isString(_ string: [UInt8], at start: Int) -> Bool {
        guard let base = payload.baseAddress, payload.count > start + string.count,
            payload[start + string.count] == UInt8(ascii: "\"")
        else { return false }
        return string.withUnsafeBytes { $0.baseAddress.map { memcmp(base + start, $0, string.count) == 0 } ?? true }
    }

    private func letters(_ range: Range<Int>) -> UInt64? {
        var value: UInt64 = 0
        for at in range {
            let digit = payload[at] &- UInt8(ascii: "a")
            guard digit < 16 else { return nil }
            value = value << 4 | UInt64(digit)
        }
        return value
    }

    private func digits(_ range: Range<Int>) -> Int? {
        var value = 0
        for at in range {
            let digit = payload[at] &- UInt8(ascii: "0")
            guard digit <= 9 else { return nil }
            value = value * 10 + Int(digit)
        }
        return value
    }

    /// The numbers of the users in the list with this key, of users named as ``userName(_:)`` does; nil when there is no
    /// such list.
    func users(in list: StaticString) -> [Int]? {
        guard var at = end(of: list) else { return nil }
        let close = payload[at...].firstIndex(of: UInt8(ascii: "]")) ?? payload.endIndex
        var found: [Int] = []
        while let next = end(of: "\"user\":\"u", from: at), next <= close {
            found.append(Int(number(at: next) ?? -1))
            at = next
        }
        return found
    }

    static func userName(_ number: Int) -> String { "u\(number)" }

    private func number(after key: StaticString) -> Int64? {
        end(of: key).flatMap(number(at:))
    }

    private func end(of key: StaticString, from start: Int = 0) -> Int? {
        guard let base = payload.baseAddress,
            let found = memmem(base + start, payload.count - start, key.utf8Start, key.utf8CodeUnitCount)
        else { return nil }
        return UnsafeRawPointer(found) - base + key.utf8CodeUnitCount
    }

    private func end(of key: StaticString, near hint: inout Int) -> Int? {
        let count = key.utf8CodeUnitCount
        if let base = payload.baseAddress, payload.count >= hint + count, memcmp(base + hint, key.utf8Start, count) == 0
        {
            return hint + count
        }
        let found = end(of: key)
        hint = found.map { $0 - count } ?? 0
        return found
    }

    private func number(at start: Int) -> Int64? {
        var at = start
        var value: Int64 = 0
        while at < payload.count, case let digit = payload[at] &- 48, digit <= 9, at - start < 18 {
            value = value * 10 + Int64(digit)
            at += 1
        }
        return at > start ? value : nil
    }

    var text: String { String(decoding: payload, as: UTF8.self) }

    /// What to say of an error.
    var refusal: String {
        let hint = text.contains("rate_limited") ? " (lift its limits with MARTLET_LIMIT_MESSAGES_PER_SECOND=0)" : ""
        return "the server answered \(text)\(hint)"
    }
}

/// A `message` of which each copy differs in when it was due and in its number alone.
struct Text: Sendable {
    /// At the start of a text: when it was due, in monotonic nanoseconds, as 16 hexadecimal digits from `a` to `p`; who of the
    /// room's publishers sent it, as four of them; its number, as eight decimal digits.
    struct Stamp: Equatable {
        let due: UInt64
        let publisher: Int
        let number: Int
    }

    static let stampBytes = 28
    static let maximumBytes = 60_000
    /// What follows the stamp.
    static let filler = [UInt8](repeating: UInt8(ascii: "x"), count: maximumBytes)
    private static let idBytes = 8

    private var json: [UInt8]
    private let stampAt: Int
    private let idAt: Int

    /// - Parameters:
    ///   - publisher: which of the room's, below 65,536.
    ///   - bytes: length of the text, at least ``stampBytes``.
    init(room: String, publisher: Int, bytes: Int) {
        json = Array("{\"type\":\"message\",\"room\":\"\(room)\",\"text\":\"".utf8)
        stampAt = json.count
        json.append(contentsOf: Self.filler.prefix(bytes))
        json.append(contentsOf: "\",\"id\":\"".utf8)
        idAt = json.count
        json.append(contentsOf: repeatElement(UInt8(ascii: "0"), count: Self.idBytes))
        json.append(contentsOf: "\"}".utf8)
        writeLetters(UInt64(publisher), (stampAt + 16)..<(stampAt + 20))
    }

    /// - Parameter id: from 1 on.
    mutating func message(due: UInt64, id: Int) -> [UInt8] {
        writeLetters(due, stampAt..<(stampAt + 16))
        writeDigits(id, (stampAt + 20)..<(stampAt + 28))
        writeDigits(id, idAt..<(idAt + Self.idBytes))
        return json
    }

    /// Whether this is the `id` of an answer to message `id`, or the number in its text: it has eight digits.
    static func isID(_ seen: Int64?, _ id: Int) -> Bool { seen == Int64(id % 100_000_000) }

    private mutating func writeLetters(_ value: UInt64, _ range: Range<Int>) {
        var rest = value
        for at in range.reversed() {
            json[at] = UInt8(ascii: "a") + UInt8(rest & 15)
            rest >>= 4
        }
    }

    private mutating func writeDigits(_ value: Int, _ range: Range<Int>) {
        var rest = value
        for at in range.reversed() {
            json[at] = UInt8(ascii: "0") + UInt8(rest % 10)
            rest /= 10
        }
    }
}
