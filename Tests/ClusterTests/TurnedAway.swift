import TestSupport

/// How a node told a client that it may not come in.
struct TurnedAway: Sendable {
    let code: Int64?
    let reason: String?
    let closed: TestClient.Closed
}

extension Cluster {
    /// `nil` when the user is let in.
    ///
    /// - Throws: ``TestClient/Refused`` when the handshake itself is refused.
    func turnsAway(
        _ user: String, at process: ClusterProcess, options: TestClient.Options = .init()
    ) async throws -> TurnedAway? {
        let client = try await open("/ws?user=\(Session.percentEncoded(user))", at: process, options: options)
        let first = try await client.next("an answer") { ["welcome", "error"].contains($0["type"]?.string) }
        guard first["type"]?.string == "error" else {
            client.close()
            return nil
        }
        return TurnedAway(
            code: first["code"]?.int, reason: first["reason"]?.string, closed: try await client.closed())
    }
}
