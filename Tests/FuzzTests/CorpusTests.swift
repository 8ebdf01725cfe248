import Foundation
import FuzzTargets
import Testing

/// Every input that `make fuzz` begins with, those that once broke something among them.
@Suite("Fuzzing")
struct CorpusTests {
    private static let corpus = URL(filePath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().appending(path: "Fuzz/corpus")

    @Test("T17: the corpus of a target holds", arguments: FuzzTarget.allCases)
    func corpus(of target: FuzzTarget) throws {
        let files = try FileManager.default.contentsOfDirectory(
            at: Self.corpus.appending(path: target.rawValue), includingPropertiesForKeys: nil)
        #expect(!files.isEmpty)
        for file in files {
            let bytes = Array(try Data(contentsOf: file))
            #expect(target.finding(in: bytes)?.description == nil, "\(target.rawValue)/\(file.lastPathComponent)")
        }
    }

    @Test("every folder of the corpus has its target")
    func folders() throws {
        let folders = try FileManager.default.contentsOfDirectory(atPath: Self.corpus.path())
        #expect(Set(folders) == Set(FuzzTarget.allCases.map(\.rawValue)))
    }
}
