import Glibc
import NIOCore
import RedisClient
import WebSocketTransport

extension SettingSyntax {
    /// What is wrong with a URL is said without showing it: it may hold a password.
    static let redisURL = SettingSyntax(
        allowed: "a URL that begins with redis://, rediss:// or unix://", refusal: { redisProblem($0) ?? "" },
        holdsPassword: { (try? RedisConfiguration(url: $0))?.hasPassword == true },
        redacted: { (try? RedisConfiguration(url: $0))?.description ?? "" },
        accepts: { redisProblem($0) == nil })

    private static func redisProblem(_ text: String) -> String? {
        do throws(RedisConfigurationError) {
            _ = try RedisConfiguration(url: text)
            return nil
        } catch {
            return error.description
        }
    }

    static let prefix = SettingSyntax(allowed: "1 to 64 characters of A-Z a-z 0-9 _ . : -") { text in
        isMade(text, upTo: 64, of: "_.:-")
    }

    static let nodeName = SettingSyntax(allowed: "1 to 64 characters of A-Z a-z 0-9 _ . -") { text in
        isMade(text, upTo: 64, of: "_.-")
    }

    static let host = SettingSyntax(allowed: "a host name or an address") { text in
        isMade(text, upTo: 255, of: "_.-:%")
    }

    static let hostName = SettingSyntax(allowed: "a host name, no address") { text in
        host.accepts(text) && IPAddress(text) == nil
    }

    static let hostAndPort = SettingSyntax(allowed: "host:port, with [ ] around an IPv6 address") { text in
        guard let colon = text.lastIndex(of: ":"), let port = wholeNumber(String(text[text.index(after: colon)...])),
            (1...65535).contains(port)
        else { return false }
        let host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") { return isIPv6(String(host.dropFirst().dropLast())) }
        return isMade(String(host), upTo: 255, of: "_.-")
    }

    static let path = SettingSyntax(allowed: "the path of a file") { text in
        (1...4096).contains(text.utf8.count) && !text.utf8.contains(0)
    }

    static func secret(minimumBytes: Int) -> SettingSyntax {
        SettingSyntax(allowed: "at least \(minimumBytes) bytes") { $0.utf8.count >= minimumBytes }
    }

    /// Digits alone: no sign, no space, no other numerals.
    static func wholeNumber(_ text: String) -> Int? {
        guard !text.isEmpty, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        return Int(text)
    }

    /// Digits with at most one point and at least one digit: `10`, `0.25`, `.5`.
    static func seconds(_ text: String) -> TimeAmount? {
        guard text.utf8.allSatisfy({ (0x30...0x39).contains($0) || $0 == 0x2E }), text.utf8.count <= 20,
            let number = Double(text), number < 1e9
        else { return nil }
        return .microseconds(Int64((number * 1_000_000).rounded()))
    }

    static func trim(_ text: Substring) -> String {
        String(text.drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
    }

    private static func isIPv6(_ text: String) -> Bool {
        var address = in6_addr()
        return inet_pton(AF_INET6, text, &address) == 1
    }

    private static func isMade(_ text: String, upTo limit: Int, of punctuation: String) -> Bool {
        let bytes = text.utf8
        guard (1...limit).contains(bytes.count) else { return false }
        return bytes.allSatisfy { byte in
            (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
                || punctuation.utf8.contains(byte)
        }
    }
}

enum EditDistance {
    /// Insertions, deletions, replacements and swaps of neighbours that turn one text into the other.
    static func between(_ a: String, _ b: String) -> Int {
        let a = Array(a.utf8)
        let b = Array(b.utf8)
        var beforePrevious: [Int] = []
        var previous = Array(0...b.count)
        for i in 0..<a.count {
            var current = [i + 1] + [Int](repeating: 0, count: b.count)
            for j in 0..<b.count {
                current[j + 1] = min(previous[j + 1] + 1, current[j] + 1, previous[j] + (a[i] == b[j] ? 0 : 1))
                if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] {
                    current[j + 1] = min(current[j + 1], beforePrevious[j - 1] + 1)
                }
            }
            beforePrevious = previous
            previous = current
        }
        return previous[b.count]
    }

    /// The first of the closest; nil only when there is no candidate.
    static func nearest(to text: String, among candidates: [String]) -> String? {
        var nearest: (text: String, distance: Int)?
        for candidate in candidates {
            // No fewer insertions than one text is longer.
            if let nearest, abs(candidate.utf8.count - text.utf8.count) >= nearest.distance { continue }
            let distance = between(text, candidate)
            if distance < nearest?.distance ?? .max { nearest = (candidate, distance) }
        }
        return nearest?.text
    }
}
