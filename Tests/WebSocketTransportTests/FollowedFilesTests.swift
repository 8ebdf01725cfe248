import Foundation
import Glibc
import Synchronization
import TLSClient
import Testing

@Suite("Files that are followed")
struct FollowedFilesTests {
    private struct Refused: Error {}

    /// A file whose bytes are the value, and which can be read or not.
    private final class Fixture: Sendable {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString).path
        let isReadable = Mutex(true)

        deinit { unlink(path) }

        func write(_ text: String) throws { try text.write(toFile: path, atomically: true, encoding: .utf8) }
        func allow(_ isReadable: Bool) { self.isReadable.withLock { $0 = isReadable } }

        func follow() throws -> FollowedFiles<String, Refused> {
            try write("first")
            return try FollowedFiles([path]) { [self] () throws(Refused) in
                guard isReadable.withLock({ $0 }), let bytes = FileManager.default.contents(atPath: path) else {
                    throw Refused()
                }
                return String(decoding: bytes, as: UTF8.self)
            }
        }
    }

    private func look(_ files: FollowedFiles<String, Refused>, isForced: Bool = false) -> String {
        switch files.look(isForced: isForced) {
        case .unchanged: "unchanged"
        case .loaded(let text): "loaded \(text)"
        case .failed: "failed"
        }
    }

    @Test("what changed is read at the second look that finds it the same, and not again")
    func change() throws {
        let fixture = Fixture()
        let files = try fixture.follow()
        #expect(look(files) == "unchanged")
        try fixture.write("second")
        #expect((0..<3).map { _ in look(files) } == ["unchanged", "loaded second", "unchanged"])
        #expect(files.value == "second")
    }

    @Test("what could not be read is read once its owner or mode is another, and holds until then")
    func mode() throws {
        let fixture = Fixture()
        let files = try fixture.follow()
        fixture.allow(false)
        try fixture.write("second")
        #expect((0..<3).map { _ in look(files) } == ["unchanged", "failed", "unchanged"])
        #expect(files.value == "first")
        fixture.allow(true)
        chmod(fixture.path, 0o640)
        #expect((0..<3).map { _ in look(files) } == ["unchanged", "loaded second", "unchanged"])
    }

    @Test("what could not be read is tried again now and then, though nothing changed")
    func retry() throws {
        let fixture = Fixture()
        let files = try fixture.follow()
        fixture.allow(false)
        #expect(look(files, isForced: true) == "failed")
        let between = Array(repeating: "unchanged", count: FollowedFiles<String, Refused>.retryLooks - 1)
        #expect(between.indices.map { _ in look(files) } == between)
        #expect(look(files) == "failed")
        fixture.allow(true)
        #expect(between.indices.map { _ in look(files) } == between)
        #expect(look(files) == "loaded first")
        #expect(between.indices.map { _ in look(files) } == between)
        #expect(look(files) == "unchanged")
    }

    @Test("when told, they are read whatever they are")
    func forced() throws {
        let fixture = Fixture()
        let files = try fixture.follow()
        #expect(look(files, isForced: true) == "loaded first")
    }
}
