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
    }

    func seq(_ hint: inout Hint) -> Int64? {
        end(of: "\"seq\":", near: &hint.seq).flatMap(number(at:))
    }

    /// What ``Text`` put at the start of the text.
    func stamp(_ hint: inout Hint) -> UInt64? {
        guard let start = end(of: "\"text\":\"", near: &hint.text), payload.count >= start + Text.stampBytes else {
            return nil
        }
        var value: UInt64 = 0
        for at in start..<(start + Text.stampBytes) {
            let digit = payload[at] &- UInt8(ascii: "a")
            guard digit < 16 else { return nil }
            value = value << 4 | UInt64(digit)
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
    /// Hexadecimal digits from `a` to `p` at the start of the text: when the message was due, in monotonic nanoseconds.
    static let stampBytes = 16
    private static let idBytes = 8

    private var json: [UInt8]
    private let stampAt: Int
    private let idAt: Int

    /// - Parameter bytes: length of the text, at least ``stampBytes``.
    init(room: String, bytes: Int) {
        json = Array("{\"type\":\"message\",\"room\":\"\(room)\",\"text\":\"".utf8)
        stampAt = json.count
        json.append(contentsOf: repeatElement(UInt8(ascii: "x"), count: bytes))
        json.append(contentsOf: "\",\"id\":\"".utf8)
        idAt = json.count
        json.append(contentsOf: repeatElement(UInt8(ascii: "0"), count: Self.idBytes))
        json.append(contentsOf: "\"}".utf8)
    }

    /// - Parameter id: 1 to 99,999,999; what is more begins again at 0.
    mutating func message(due: UInt64, id: Int) -> [UInt8] {
        var rest = due
        for at in stride(from: stampAt + Self.stampBytes - 1, through: stampAt, by: -1) {
            json[at] = UInt8(ascii: "a") + UInt8(rest & 15)
            rest >>= 4
        }
        var number = id
        for at in stride(from: idAt + Self.idBytes - 1, through: idAt, by: -1) {
            json[at] = UInt8(ascii: "0") + UInt8(number % 10)
            number /= 10
        }
        return json
    }

    /// Whether an answer's `id` is that of message `id`.
    static func isID(_ seen: Int64?, _ id: Int) -> Bool { seen == Int64(id % 100_000_000) }
}
