/// The path and query of a request target in origin, absolute or asterisk form (RFC 9112 section 3.2).
struct RequestTarget: Equatable {
    let path: String
    let queryItems: [(name: String, value: String)]

    static func == (left: RequestTarget, right: RequestTarget) -> Bool {
        left.path == right.path && left.queryItems.elementsEqual(right.queryItems, by: ==)
    }

    /// Nil when a percent-escape is broken or what it decodes to is not UTF-8.
    init?(_ uri: String) {
        var rest = Substring(uri)
        if !rest.hasPrefix("/"), let scheme = rest.firstRange(ofScheme: "://") {
            rest = rest[scheme...]
            rest = rest.firstIndex { $0 == "/" || $0 == "?" || $0 == "#" }.map { rest[$0...] } ?? ""
        }
        if let fragment = rest.firstIndex(of: "#") { rest = rest[..<fragment] }
        let mark = rest.firstIndex(of: "?")
        let rawPath = mark.map { rest[..<$0] } ?? rest
        let path = PercentEncoding.decode(rawPath, plusIsSpace: false)
        let query = QueryItems(mark.map { rest[rest.index(after: $0)...] } ?? "")
        guard path.isValid, query.isValid else { return nil }
        self.path = path.text.isEmpty ? "/" : path.text
        queryItems = query.items
    }
}

extension Substring {
    /// Where the text behind `separator` starts, when only letters, digits, `+`, `-`, `.` stand before it.
    fileprivate func firstRange(ofScheme separator: String) -> Index? {
        guard let colon = firstIndex(of: ":"), self[colon...].hasPrefix(separator) else { return nil }
        return index(colon, offsetBy: separator.count)
    }
}
