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
                "incarnation_next", "nodes_hint", "node_register", "node_heartbeat", "node_drain", "node_undrain",
                "node_claim", "node_swept", "node_add_session", "room_leave", "room_sweep", "room_trim", "session_set",
                "session_detach", "session_confirm", "session_adopt", "session_release", "user_own", "user_release",
                "orders_put",
                "orders_lift", "orders_expire", "audit_node", "router_tell",
            ])
    }

    @Test("T11: make no code out of a string, and reach no further than Redis", arguments: ClusterScripts.all)
    func noCode(script: RedisScript) {
        let code = script.source.split(separator: "\n").map { line in
            line.firstRange(of: "--").map { String(line[..<$0.lowerBound]) } ?? String(line)
        }.joined(separator: "\n")
        let words = code.split { !($0.isLetter || $0.isNumber || $0 == "_" || $0 == ".") }
        let forbidden = [
            "load", "loadstring", "loadfile", "dofile", "require", "setfenv", "getfenv", "os", "io", "debug",
        ]
        for word in words {
            #expect(!forbidden.contains(String(word.prefix { $0 != "." })), "\(script.name): \(word)")
        }
        // Which command is called stands in the script, never in what it was given.
        for call in code.split(separator: "call(").dropFirst() {
            let command = call.prefix { $0 != "," && $0 != ")" }
            #expect(command.hasPrefix("'") || command == "command", "\(script.name): \(command)")
        }
        for line in code.split(separator: "\n") where line.contains("command =") {
            #expect(!line.contains("ARGV") && !line.contains("KEYS"), "\(script.name): \(line)")
        }
    }

    @Test("never print a number as Lua would: 1e+14")
    func numbers() {
        for script in ClusterScripts.all {
            #expect(!script.source.contains("tostring("), "\(script.name)")
        }
    }
}
