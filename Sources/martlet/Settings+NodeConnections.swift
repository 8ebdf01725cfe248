import RouterServer
import WebSocketTransport

/// How a router dials nodes.
extension Settings {
    /// Above this, one of the addresses is a mistake; a million connections to one node take 36.
    private static let mostSources = 256

    static let nodeConnectionRows: [SettingRow] = [
        SettingRow(
            key: "MARTLET_NODE_SOURCE",
            allowed: "a comma-separated list of addresses or CIDR blocks, with \(mostSources) addresses at most",
            readers: [.router],
            doc:
                "The addresses of this machine from which the router dials nodes, in turn, e.g. 10.0.0.5,10.0.0.6: from each it"
                + " can have about 28,000 connections to one node.",
            defaultText: nil, unset: "the kernel chooses one", form: .list,
            apply: { settings, text in
                let parts = text.split(separator: ",")
                let blocks = parts.compactMap { AddressBlock(SettingSyntax.trim($0)) }
                let sources = blocks.flatMap { $0.addresses(atMost: mostSources + 1) }
                guard blocks.count == parts.count, (1...mostSources).contains(sources.count) else { return false }
                settings.nodeSources = sources
                return true
            }),
        .choice(
            "MARTLET_NODE_PROXY_PROTOCOL", flag: nil, \.nodeProxyProtocol, [.node, .router],
            "Whether connections to nodes from their MARTLET_TRUSTED_PROXIES begin with a header of the PROXY protocol, version"
                + " 2: routers write it, and a node closes what lacks it. The same for every node and router."),
    ]

    /// From where the router dials nodes; nil: the kernel chooses.
    func nodeSourceAddresses() throws(Failure) -> NodeSources? {
        guard !nodeSources.isEmpty else { return nil }
        do throws(NodeSources.NotOfThisMachine) {
            return try NodeSources(nodeSources)
        } catch {
            throw Failure(
                .usage, "MARTLET_NODE_SOURCE has \(error.address), which is not an address of this machine")
        }
    }
}
