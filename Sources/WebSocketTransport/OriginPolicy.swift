import NIOHTTP1

/// The web origin of a page (RFC 6454 section 6.1): scheme, host and port, as a browser sends it.
package struct Origin: Hashable, Sendable {
    /// `http` or `https`.
    package let scheme: String
    /// In lower case; an IPv6 address in brackets.
    package let host: String
    package let port: Int

    /// `https://chat.example.com` or `http://127.0.0.1:8080`: nothing behind host and port.
    package init?(_ text: some StringProtocol) {
        let text = text.lowercased()
        guard let scheme = ["https", "http"].first(where: { text.hasPrefix($0 + "://") }) else { return nil }
        let authority = text.dropFirst(scheme.utf8.count + 3)
        guard let (host, port) = Self.split(authority) else { return nil }
        self.scheme = scheme
        self.host = host
        self.port = port ?? Self.port(of: scheme)
    }

    static func port(of scheme: String) -> Int { scheme == "https" ? 443 : 80 }

    /// Host and port, where the port is given.
    static func split(_ authority: some StringProtocol) -> (host: String, port: Int?)? {
        let text = authority.lowercased()
        var host = Substring(text)
        var port: Int?
        let afterBracket = text.lastIndex(of: "]") ?? text.startIndex
        if let colon = text[afterBracket...].lastIndex(of: ":") {
            let digits = text[text.index(after: colon)...]
            guard (1...5).contains(digits.utf8.count), digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
                let number = Int(digits), (1...65535).contains(number)
            else { return nil }
            port = number
            host = text[..<colon]
        }
        let isBracketed = host.hasPrefix("[") && host.hasSuffix("]")
        guard (1...255).contains(host.utf8.count),
            host.utf8.allSatisfy({ byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"),
                    UInt8(ascii: "."), UInt8(ascii: "_"):
                    true
                case UInt8(ascii: "["), UInt8(ascii: "]"), UInt8(ascii: ":"): isBracketed
                default: false
                }
            })
        else { return nil }
        return (String(host), port)
    }
}

/// Pages of which origins may open a WebSocket: a browser lets every page try, and sends the cookies of ours along (cross-site
/// WebSocket hijacking). Only browsers can be held to it: others send what they like.
package struct OriginPolicy: Sendable, Equatable {
    package enum Rule: Sendable, Equatable {
        /// `*`: every origin that is one.
        case any
        /// `self`: the host and port that the handshake itself was sent to. A page that came over plain HTTP is not the
        /// same where the handshake came by TLS.
        case sameHost
        case exact(Origin)
        /// `https://*.example.com`: every host below that one, at any depth, and not itself.
        case below(Origin)

        package init?(_ text: some StringProtocol) {
            switch text {
            case "*": self = .any
            case "self": self = .sameHost
            default:
                if let wildcard = text.firstIndex(of: "*") {
                    let rest = text[text.index(after: wildcard)...]
                    guard text[..<wildcard].hasSuffix("://"), rest.hasPrefix("."),
                        let origin = Origin("\(text[..<wildcard])\(rest.dropFirst())"), !origin.host.hasPrefix("[")
                    else { return nil }
                    self = .below(origin)
                } else {
                    guard let origin = Origin(text) else { return nil }
                    self = .exact(origin)
                }
            }
        }
    }

    package var rules: [Rule]
    /// Whether who sends no `Origin`, and so is no browser, may come.
    package var allowsMissing: Bool

    package init(rules: [Rule] = [.sameHost], allowsMissing: Bool = false) {
        self.rules = rules
        self.allowsMissing = allowsMissing
    }

    package enum Verdict: Sendable, Equatable {
        case allowed, missing, foreign
    }

    package func check(_ request: HTTPRequest) -> Verdict {
        var authority = request.headers.first(name: "host")
        if request.isFromTrustedProxy {
            authority = Self.first(of: request.headers.first(name: "x-forwarded-host")) ?? authority
        }
        return check(request.headers["origin"], authority: authority, isSecure: request.isSecure)
    }

    /// `null`, the origin of sandboxed frames and files, is always foreign, and so is more than one.
    ///
    /// - Parameters:
    ///   - given: the values of `Origin`.
    ///   - authority: host and port that the client asked for.
    ///   - isSecure: the client speaks TLS.
    package func check(_ given: [String], authority: String?, isSecure: Bool) -> Verdict {
        guard !given.isEmpty else { return allowsMissing ? .allowed : .missing }
        guard given.count == 1, let origin = Origin(given[0]) else { return .foreign }
        return rules.contains { allows(origin, $0, authority, isSecure) } ? .allowed : .foreign
    }

    /// Of a list of `X-Forwarded-Host`: the one next to the client wrote the first.
    package static func first(of forwardedHosts: String?) -> String? {
        forwardedHosts?.split(separator: ",").first.map { String($0.trimmedBlanks) }
    }

    private func allows(_ origin: Origin, _ rule: Rule, _ authority: String?, _ isSecure: Bool) -> Bool {
        switch rule {
        case .any: true
        case .exact(let allowed): origin == allowed
        case .below(let parent):
            origin.scheme == parent.scheme && origin.port == parent.port && origin.host.hasSuffix("." + parent.host)
        case .sameHost: Self.isSameHost(origin, authority, isSecure)
        }
    }

    private static func isSameHost(_ origin: Origin, _ authority: String?, _ isSecure: Bool) -> Bool {
        if isSecure, origin.scheme == "http" { return false }
        guard let authority, let (host, port) = Origin.split(authority) else { return false }
        return host == origin.host && (port ?? Origin.port(of: origin.scheme)) == origin.port
    }
}
