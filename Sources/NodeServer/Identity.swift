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
        let client: String?
        /// The first frame will say which session goes on (`?resume=1`): none is opened before it.
        let resumes: Bool
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
                user: user == nil ? nil : try UserName(validating: user ?? ""), client: client, resumes: resumes)
        case .token(let verifier):
            guard let token = bearer(request.headers) ?? request.query("token") else {
                return Claim(user: nil, client: client, resumes: resumes)
            }
            return Claim(user: try user(of: token, verifier), client: client, resumes: resumes)
        }
    }

    static func user(of token: String, _ verifier: TokenVerifier) throws(WireError) -> UserName {
        let claims: TokenClaims
        do throws(TokenError) {
            claims = try verifier.verify(token, nowSeconds: WallClock.milliseconds() / 1000)
        } catch {
            throw WireError(.authenticationFailed, "the token was not accepted: \(error)")
        }
        return try UserName(validating: claims.subject)
    }

    private static func bearer(_ headers: HTTPHeaders) -> String? {
        guard let value = headers.first(name: "authorization"), value.lowercased().hasPrefix("bearer ") else {
            return nil
        }
        return String(value.dropFirst("bearer ".count).drop { $0 == " " })
    }
}
