/// What the server's gate decides for a connection, and hears of it.
extension HTTPServerConnection {
    /// What every request but the questions for health is answered with.
    var gateRefusal: GateRefusal? {
        if case .refuse(let refusal)? = admission { refusal } else { nil }
    }

    func note(_ cause: AnomalyCause, of client: IPAddress) {
        server.settings.gate?.note(cause, of: client)
    }

    func leaveGate() {
        guard let admission else { return }
        self.admission = nil
        server.settings.gate?.ended(accepted, as: admission)
    }
}

extension AnomalyCause {
    /// - Parameter status: of the answer to a handshake that the application refused.
    package init?(refusedUpgrade status: Int) {
        switch status {
        case 400, 404, 405, 426: self = .badHandshake
        case 401: self = .badToken
        case 403: self = .badOrigin
        default: return nil
        }
    }
}
