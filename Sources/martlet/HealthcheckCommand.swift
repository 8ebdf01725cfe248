import ArgumentParser
import LoadGenerator

/// For images that hold no shell and no curl.
struct HealthcheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "healthcheck",
        abstract: "Exits 0 when a URL answers 200 within three seconds, else 1."
    )

    @Argument(help: "What to get: http://host:port/path.")
    var url = "http://127.0.0.1:8081/readyz"

    func run() throws {
        guard url.hasPrefix("http://"), let endpoint = try? Endpoint(url) else {
            throw Failure(
                .usage,
                "“\(Printable.text(url))” is no address of the form http://host:port/path (TLS is not spoken here)")
        }
        let status: Int
        do {
            status = try httpStatus(of: endpoint, timeoutSeconds: 3)
        } catch {
            throw Failure(.failed, error.description)
        }
        guard status == 200 else { throw Failure(.failed, "\(url) answered \(status)") }
    }
}
