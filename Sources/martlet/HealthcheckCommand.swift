import ArgumentParser
import LoadGenerator

/// For images that hold no shell and no curl.
struct HealthcheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "healthcheck",
        abstract: "Exits 0 when a URL answers 200 within three seconds, else 1.",
        shouldDisplay: false
    )

    @Argument(help: "What to get.")
    var url = "http://127.0.0.1:8081/readyz"

    func run() throws {
        let status: Int
        do {
            status = try httpStatus(of: Endpoint(url), timeoutSeconds: 3)
        } catch {
            throw Failure(.failed, error.description)
        }
        guard status == 200 else { throw Failure(.failed, "\(url) answered \(status)") }
    }
}
