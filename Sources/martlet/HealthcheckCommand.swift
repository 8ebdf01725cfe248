import ArgumentParser
import LoadGenerator

/// For images that hold no shell and no curl.
struct HealthcheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "healthcheck",
        abstract: "Exits 0 when a URL answers 200 within three seconds, else 1."
    )

    @Argument(help: "What to get: http://host:port/path or https://host:port/path.")
    var url = "http://127.0.0.1:9081/readyz"

    @Option(help: "A file of PEM certificates to trust for https:// instead of the system's.")
    var cacert: String?

    @Flag(help: "Take any certificate of an https:// address.")
    var insecure = false

    func run() throws {
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
}
