import TLSClient
import WebSocketTransport

/// What a server is told of TLS: paths of PEM files.
struct TLSSettings: Sendable, Equatable {
    var certificate: String?
    var key: String?
    var clientAuthorities: String?
    var nodeAuthorities: String?
    var nodeCertificate: String?
    var nodeKey: String?
    var nodeName: String?
}

extension Settings {
    static let tlsRows: [SettingRow] = [
        .optionalPaths(
            "MARTLET_TLS_CERT", \.tls.certificate, .servers,
            "The PEM file of the server's certificate, behind it those that lead to the authority; or several, of which each"
                + " client is shown the one for the name that it asks for, else the first. With it the port speaks"
                + " https:// and wss:// alone. Read again when it changes, and on SIGHUP; at dev the router's.",
            unset: "http:// and ws://"),
        .optionalPaths(
            "MARTLET_TLS_KEY", \.tls.key, .servers,
            "The PEM file of the key of MARTLET_TLS_CERT, not encrypted; of several those of their keys, in the same order.",
            unset: "MARTLET_TLS_CERT is not set either"),
        .optionalText(
            "MARTLET_TLS_CLIENT_CA", flag: nil, \.tls.clientAuthorities, SettingSyntax.path, [.node],
            "A PEM file of authorities, one of which must have signed the certificate that whoever connects to the node has"
                + " to show: so that only routers do.", unset: "nobody is asked for a certificate"),
        .optionalText(
            "MARTLET_NODE_TLS_CA", flag: nil, \.tls.nodeAuthorities, SettingSyntax.path, [.router],
            "A PEM file of authorities. With it the router speaks TLS to nodes, and only to those whose certificate one of"
                + " them signed.", unset: "http:// to nodes"),
        .optionalText(
            "MARTLET_NODE_TLS_CERT", flag: nil, \.tls.nodeCertificate, SettingSyntax.path, [.router],
            "The PEM file of the certificate that the router shows to nodes which ask for one (MARTLET_TLS_CLIENT_CA).",
            unset: "it shows none"),
        .optionalText(
            "MARTLET_NODE_TLS_KEY", flag: nil, \.tls.nodeKey, SettingSyntax.path, [.router],
            "The PEM file of the key of MARTLET_NODE_TLS_CERT, not encrypted.",
            unset: "MARTLET_NODE_TLS_CERT is not set either"),
        .optionalText(
            "MARTLET_NODE_TLS_NAME", flag: nil, \.tls.nodeName, SettingSyntax.hostName, [.router],
            "The name in the certificates of all nodes.", unset: "each node's is the host of its MARTLET_ADVERTISE"),
    ]

    /// What clients speak TLS with; nil: they speak HTTP as it is. Blocks on the disk.
    func serverTLS() throws(Failure) -> TLSCredentials? {
        let pair = try pair(tls.certificate, "MARTLET_TLS_CERT", tls.key, "MARTLET_TLS_KEY")
        guard let pair else {
            guard tls.clientAuthorities == nil else {
                throw missing("MARTLET_TLS_CERT and MARTLET_TLS_KEY", neededBy: "MARTLET_TLS_CLIENT_CA")
            }
            return nil
        }
        let (certificates, keys) = (SettingSyntax.list(pair.certificate), SettingSyntax.list(pair.key))
        guard certificates.count == keys.count else {
            throw Failure(
                .usage,
                "\(name(of: "MARTLET_TLS_CERT")) names \(certificates.count) and \(name(of: "MARTLET_TLS_KEY"))"
                    + " \(keys.count): each certificate has a key"
            )
        }
        return try Self.loaded(names(ofGiven: "MARTLET_TLS_CERT", "MARTLET_TLS_KEY", "MARTLET_TLS_CLIENT_CA")) {
            () throws(TLSFailure) in
            try TLSCredentials(
                Array(zip(certificates, keys)).map { (certificate: $0, key: $1) },
                clientAuthorities: tls.clientAuthorities)
        }
    }

    /// What the router speaks TLS with to nodes; nil: it speaks HTTP as it is. Blocks on the disk.
    func nodeTLS() throws(Failure) -> FollowedFiles<TLSClient, TLSFailure>? {
        let pair = try pair(
            tls.nodeCertificate, "MARTLET_NODE_TLS_CERT", tls.nodeKey, "MARTLET_NODE_TLS_KEY")
        guard let authorities = tls.nodeAuthorities else {
            guard pair == nil, tls.nodeName == nil else {
                let user = pair == nil ? "MARTLET_NODE_TLS_NAME" : "MARTLET_NODE_TLS_CERT"
                throw missing("MARTLET_NODE_TLS_CA", neededBy: user)
            }
            return nil
        }
        let options = TLSClientOptions(
            authorities: authorities, certificate: pair?.certificate, key: pair?.key, serverName: tls.nodeName)
        return try Self.loaded(names(ofGiven: "MARTLET_NODE_TLS_CA", "MARTLET_NODE_TLS_CERT", "MARTLET_NODE_TLS_KEY")) {
            () throws(TLSFailure) in
            try FollowedFiles(options)
        }
    }

    private func pair(
        _ certificate: String?, _ certificateName: String, _ key: String?, _ keyName: String
    ) throws(Failure) -> (certificate: String, key: String)? {
        switch (certificate, key) {
        case (let certificate?, let key?): return (certificate, key)
        case (nil, nil): return nil
        case (_?, nil): throw missing(keyName, neededBy: certificateName)
        case (nil, _?): throw missing(certificateName, neededBy: keyName)
        }
    }

    private func missing(_ needed: String, neededBy key: String) -> Failure {
        Failure(.usage, "\(name(of: key)) is set, which needs \(needed)")
    }

    private static func loaded<Files>(_ names: String, _ load: () throws(TLSFailure) -> Files) throws(Failure) -> Files
    {
        do throws(TLSFailure) {
            return try load()
        } catch {
            throw Failure(.usage, "\(names) cannot be used: \(Printable.text(error.description))")
        }
    }
}

extension SettingSyntax {
    /// The members of a comma-separated list.
    static func list(_ text: String) -> [String] { text.split(separator: ",").map(trim) }

    static let paths = SettingSyntax(allowed: "a comma-separated list of paths of files") { text in
        let parts = text.split(separator: ",", omittingEmptySubsequences: false).map(trim)
        return parts.allSatisfy { path.accepts($0) }
    }
}

extension SettingRow {
    fileprivate static func optionalPaths(
        _ key: String, _ path: Path<String?>, _ readers: Set<Reader>, _ doc: String, unset: String
    ) -> SettingRow {
        var row = optionalText(key, flag: nil, path, SettingSyntax.paths, readers, doc, unset: unset)
        row.form = .list
        return row
    }
}
