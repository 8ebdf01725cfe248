import Foundation
import RedisClient
import Testing

@testable import ClusterState

@Suite("The scripts")
struct ClusterScriptsTests {
    private static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("Sources/ClusterState/Scripts")

    @Test("in the folder are those of the table, each under its file's name")
    func tableIsWhole() throws {
        let files = try FileManager.default.contentsOfDirectory(atPath: Self.folder.path)
            .filter { !$0.hasPrefix("fragment_") }
        #expect(Set(files) == Set(ClusterScripts.all.map { $0.name + ".lua" }))
        #expect(files.count == ClusterScripts.all.count)
    }

    @Test("say what they are in a shebang, and what they take and give in their head", arguments: ClusterScripts.all)
    func heads(script: RedisScript) throws {
        let text = try String(contentsOf: Self.folder.appendingPathComponent(script.name + ".lua"), encoding: .utf8)
        let shebang = text.prefix { $0 != "\n" }
        #expect(["#!lua", "#!lua flags=allow-oom", "#!lua flags=no-writes"].contains(shebang))
        for word in ["KEYS", "ARGV", "RETURNS", "ATOMICITY"] {
            #expect(text.contains("\n-- \(word) "), "\(script.name) lacks \(word)")
        }
        #expect(script.source.hasPrefix(shebang), "Redis reads the shebang only at the start")
        #expect(!script.source.contains("\n-- include:"), "an include was not resolved")
    }

    @Test("that keep a cluster alive run when Redis is full, and those that add to it do not")
    func allowOOM() {
        let allowed = ClusterScripts.all.filter { $0.source.hasPrefix("#!lua flags=allow-oom\n") }.map(\.name)
        #expect(
            Set(allowed) == [
                "incarnation_next", "nodes_hint", "node_register", "node_heartbeat", "node_drain", "node_claim",
                "node_swept", "node_add_session", "room_leave", "room_sweep", "session_set", "session_detach",
                "session_confirm", "session_adopt", "session_release", "user_own", "user_release",
            ])
    }

    @Test("never print a number as Lua would: 1e+14")
    func numbers() {
        for script in ClusterScripts.all {
            #expect(!script.source.contains("tostring("), "\(script.name)")
        }
    }
}
