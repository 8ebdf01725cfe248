import ArgumentParser
import LoadGenerator

/// For images that hold no shell and no curl.
struct HealthcheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "healthcheck",
        abstract: "Exits 0 when a URL answers 200 within three seconds, else 1."
    )

    @Argument(
        help:
            "What to get: http://host:port/path or https://host:port/path. (default: /readyz of a node with these settings)"
    )
    var url: String?

    @Option(help: "A file of PEM certificates to trust for https:// instead of the system's.")
    var cacert: String?

    @Flag(help: "Take any certificate of an https:// address.")
    var insecure = false

    func run() throws {
        let url = try url ?? Self.readiness(of: Settings.read())
        guard url.hasPrefix("http://") || url.hasPrefix("https://"), let endpoint = try? Endpoint(url) else {
            throw Failure(
                .usage,
                "“\(Printable.text(url))” is no address of the form http://host:port/path or https://host:port/path")
        }
        var trust = TLSTrust()
        trust.authorities = cacert
        trust.verifies = !insecure
        let status: Int
        do {
            status = try httpStatus(of: endpoint, trust: trust, timeoutSeconds: 3)
        } catch {
            throw Failure(.failed, error.description)
        }
        guard status == 200 else { throw Failure(.failed, "\(url) answered \(status)") }
    }

    /// Where a node with these settings tells whether it is ready: not through TLS, whatever its clients speak.
    static func readiness(of settings: Settings) throws(Failure) -> String {
        let port = settings.internalPort(besides: settings.port ?? 8081)
        guard port > 0 else {
            throw Failure(
                .usage, "the internal port is one that was free at the start: name the URL, with the port of the log")
        }
        let host = DevPlan.reachableHost(settings.internalHost)
        return "http://\(host.contains(":") ? "[\(host)]" : host):\(port)/readyz"
    }
}
