import Glibc

/// One HTTP/1.1 request on a connection of its own, and the answer to its last byte.
package struct HTTPAnswer: Sendable {
    package let status: Int
    /// Names in lower case.
    package let headers: [(name: String, value: String)]
    package let body: [UInt8]

    package var text: String { String(decoding: body, as: UTF8.self) }
    package func json() throws -> JSON { try JSON(parsing: body[...]) }
    package subscript(_ name: String) -> String? { headers.first { $0.name == name }?.value }

    package struct Malformed: Error, CustomStringConvertible {
        package let description: String
    }

    /// - Parameter method: any text, so that bad ones can be sent.
    package static func of(
        _ method: String = "GET",
        _ path: String,
        port: Int,
        headers: [(String, String)] = [],
        body: String = "",
        timeout seconds: Int = 10
    ) async throws -> HTTPAnswer {
        try await offPool {
            let socket = try BlockingSocket(port: port, timeout: seconds)
            var request = "\(method) \(path) HTTP/1.1\r\n"
            var headers = headers
            if !headers.contains(where: { $0.0.lowercased() == "host" }) {
                headers.append(("Host", "127.0.0.1:\(port)"))
            }
            if !headers.contains(where: { $0.0.lowercased() == "connection" }) {
                headers.append(("Connection", "close"))
            }
            if !body.isEmpty { headers.append(("Content-Length", String(body.utf8.count))) }
            for (name, value) in headers { request += "\(name): \(value)\r\n" }
            try socket.write(request + "\r\n" + body)
            var bytes: [UInt8] = []
            while true {
                if let answer = try HTTPAnswer(parsing: bytes, toHead: method == "HEAD", atEnd: false) { return answer }
                guard try socket.read(into: &bytes) else { break }
            }
            if let answer = try HTTPAnswer(parsing: bytes, toHead: method == "HEAD", atEnd: true) { return answer }
            throw Malformed(description: "no whole answer: \(String(decoding: bytes, as: UTF8.self))")
        }
    }

    init?(parsing bytes: [UInt8], toHead: Bool, atEnd: Bool) throws {
        guard let head = try HTTPHead(parsing: bytes) else { return nil }
        var rest = bytes[head.length...]
        if toHead || head.status == 204 || head.status == 304 || head.status / 100 == 1 {
            rest = []
        } else if let length = head["content-length"] {
            guard let count = Int(length) else { throw Malformed(description: "content-length: \(length)") }
            guard rest.count >= count else { return nil }
            rest = rest.prefix(count)
        } else if head["transfer-encoding"]?.lowercased() == "chunked" {
            guard let whole = try Self.unchunked(rest) else { return nil }
            rest = whole[...]
        } else if !atEnd {
            return nil
        }
        (status, headers, body) = (head.status, head.headers, Array(rest))
    }

    private static func unchunked(_ bytes: ArraySlice<UInt8>) throws -> [UInt8]? {
        var rest = bytes
        var whole: [UInt8] = []
        while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
            let line = String(decoding: rest[..<end], as: UTF8.self).prefix { $0.isHexDigit }
            guard let count = Int(line, radix: 16) else { throw Malformed(description: "a chunk of size \(line)") }
            rest = rest[(end + 1)...]
            if count == 0 { return whole }
            guard rest.count >= count + 2 else { return nil }
            whole.append(contentsOf: rest.prefix(count))
            rest = rest.dropFirst(count + 2)
        }
        return nil
    }
}

struct HTTPHead {
    let status: Int
    let headers: [(name: String, value: String)]
    /// Bytes of the head, the empty line included.
    let length: Int

    subscript(_ name: String) -> String? { headers.first { $0.name == name }?.value }

    /// `nil` while the head is not whole.
    init?(parsing bytes: [UInt8]) throws {
        let end = Array("\r\n\r\n".utf8)
        guard bytes.count >= end.count,
            let last = (0...(bytes.count - end.count)).first(where: {
                bytes[$0] == 13 && Array(bytes[$0..<($0 + 4)]) == end
            })
        else { return nil }
        length = last + 4
        let lines = String(decoding: bytes[..<last], as: UTF8.self).split(separator: "\r\n")
        let words = (lines.first ?? "").split(separator: " ")
        guard words.count >= 2, words[0] == "HTTP/1.1", let status = Int(words[1]) else {
            throw HTTPAnswer.Malformed(description: "status line: \(lines.first ?? "")")
        }
        self.status = status
        headers = lines.dropFirst().map { line in
            let parts = line.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            let value = parts.count > 1 ? parts[1].drop { $0 == " " } : ""
            return (parts[0].lowercased(), String(value))
        }
    }
}
