/// Which of several certificates a client is shown, by the name that it asks for (RFC 6066 section 3).
package struct CertificateChoice: Sendable {
    private var exact: [String: Int] = [:]
    /// By what stands behind the `*`, from its point on.
    private var wildcards: [String: Int] = [:]

    /// - Parameter names: of each certificate: `chat.example`, or `*.example`, which is one label more (RFC 6125 section 6.4.3).
    package init(_ names: [[String]]) {
        for (index, names) in names.enumerated() {
            for name in names.map({ $0.lowercased() }) {
                if name.hasPrefix("*.") {
                    let rest = String(name.dropFirst())
                    wildcards[rest] = wildcards[rest] ?? index
                } else {
                    exact[name] = exact[name] ?? index
                }
            }
        }
    }

    /// The certificate of exactly that name, else one whose wildcard it fits, else the first; of several the first.
    package func index(for name: String?) -> Int {
        guard let name = name?.lowercased() else { return 0 }
        return exact[name] ?? name.firstIndex(of: ".").flatMap { wildcards[String(name[$0...])] } ?? 0
    }
}
