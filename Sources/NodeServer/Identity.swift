import ChatCore
import NIOHTTP1
import Telemetry
import TokenAuth
import WebSocketTransport
import WireProtocol

/// Who a connection says it is before its first frame: the `Authorization` header, `?token=` or, in development,
/// `?user=`.
enum Identity {
    struct Claim {
        let user: UserName?
        /// Of the token; `nil` without one.
        let grant: Grant?
        let client: String?
        /// The first frame will say which session goes on (`?resume=1`): none is opened before it.
        let resumes: Bool

        static let nobody = Claim(user: nil, grant: nil, client: nil, resumes: false)
    }

    static func claim(
        _ request: HTTPRequest, _ authentication: NodeConfiguration.Authentication
    ) throws(WireError) -> Claim {
        let resumes = request.query("resume") == "1"
        var client: String?
        if let named = request.query("client") { client = try ClientMessage.validate(client: named) }
        switch authentication {
        case .none:
            let user = request.query("user")
            return Claim(
                user: user == nil ? nil : try UserName(validating: user ?? ""), grant: nil, client: client,
                resumes: resumes)
        case .token(let verifier):
            guard let token = bearer(request.headers) ?? request.query("token") else {
                return Claim(user: nil, grant: nil, client: client, resumes: resumes)
            }
            let (user, grant) = try verify(token, verifier)
            return Claim(user: user, grant: grant, client: client, resumes: resumes)
        }
    }

    /// Whose token it is, and what it gives.
    static func verify(_ token: String, _ verifier: TokenVerifier) throws(WireError) -> (UserName, Grant) {
        let now = WallClock.milliseconds()
        let claims: TokenClaims
        do throws(TokenError) {
            claims = try verifier.verify(token, nowSeconds: now / 1000)
        } catch {
            throw error.retryAfterMilliseconds.map {
                WireError(.unavailable, error.description, retryAfterMilliseconds: $0)
            } ?? WireError(.authenticationFailed, "the token was not accepted: \(error)")
        }
        let grant = Grant(
            capabilities: claims.capabilities, tokenID: claims.id, issuedAt: claims.issuedAt.map(milliseconds),
            expiresAt: milliseconds(claims.expiresAt), leeway: TokenVerifier.leeway * 1000, now: now)
        return (try UserName(validating: claims.subject), grant)
    }

    /// What answers an upgrade that says no good name: 401 with a challenge (RFC 6750 section 3), 503 while the keys of tokens
    /// are being fetched, else 400.
    static func refusal(_ error: WireError) -> HTTPResponse {
        switch error.code {
        case .authenticationFailed:
            .error(
                .unauthorized, reason: error.code.reason, message: error.message,
                headers: ["WWW-Authenticate": "Bearer error=\"invalid_token\""])
        case .unavailable:
            .error(
                .serviceUnavailable, reason: error.code.reason, message: error.message,
                headers: ["Retry-After": String(max(1, ((error.retryAfterMilliseconds ?? 0) + 999) / 1000))])
        default: .error(.badRequest, reason: error.code.reason, message: error.message)
        }
    }

    /// No life is longer than what a number of milliseconds holds.
    private static func milliseconds(_ seconds: Int64) -> Int64 {
        let longest: Int64 = 1 << 50
        return min(max(seconds, -longest), longest) * 1000
    }

    private static func bearer(_ headers: HTTPHeaders) -> String? {
        guard let value = headers.first(name: "authorization"), value.lowercased().hasPrefix("bearer ") else {
            return nil
        }
        return String(value.dropFirst("bearer ".count).drop { $0 == " " })
    }
}
