import Glibc
import Testing

@testable import martlet

@Suite(".env.example")
struct EnvExampleTests {
    @Test("the file in the repository is what the table says (run `make docs` after a change)")
    func fileIsCurrent() throws {
        let root = #filePath.split(separator: "/").dropLast(3).map { "/" + $0 }.joined()
        // The checkout may have been built under another path than it stands in now.
        let candidates = [root + "/.env.example", ".env.example"]
        let text = try #require(candidates.lazy.compactMap(read).first)
        #expect(text == EnvExample.text)
    }

    @Test("no line is longer than 120 columns and every setting stands in it as a comment")
    func shape() {
        let lines = EnvExample.text.split(separator: "\n")
        #expect(lines.allSatisfy { $0.count <= 120 && $0.hasPrefix("#") })
        for row in Settings.table { #expect(lines.contains("#\(row.key)=\(row.defaultText ?? "")")) }
    }

    private func read(_ path: String) -> String? {
        guard let file = fopen(path, "r") else { return nil }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while case let count = fread(&chunk, 1, chunk.count, file), count > 0 { bytes += chunk[..<count] }
        return String(decoding: bytes, as: UTF8.self)
    }
}
