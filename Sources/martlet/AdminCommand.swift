import ArgumentParser
import WireProtocol

struct AdminCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "admin",
        abstract: "Shows who is where, and gives orders; reads Redis alone.",
        discussion: """
            Redis is what --redis says, else MARTLET_REDIS_URL, else that of the `martlet dev` which runs in this \
            directory, else redis://127.0.0.1:6379. Exit codes: 0 done, 1 not found or refused, 2 usage, 3 Redis does \
            not answer.
            """,
        subcommands: [
            AdminNodes.self, AdminRouters.self, AdminRooms.self, AdminRoom.self, AdminPresence.self, AdminUser.self,
            AdminSessions.self,
            AdminHistory.self, AdminPublish.self, AdminTail.self, AdminKick.self, AdminBan.self, AdminUnban.self,
            AdminMute.self, AdminUnmute.self, AdminRevoke.self, AdminUnrevoke.self, AdminBans.self, AdminAudit.self,
            AdminDrain.self, AdminUndrain.self, AdminRoute.self, AdminStats.self, AdminTop.self,
        ]
    )
}

/// Names that a person types are checked as a node would check them; a wrong one is a usage error.
enum AdminNames {
    static func room(_ text: String) throws(Failure) -> RoomName {
        do throws(WireError) { return try RoomName(validating: text) } catch {
            throw Failure(.usage, "\(Printable.text(text)) names no room: \(error.message)")
        }
    }

    static func user(_ text: String) throws(Failure) -> UserName {
        do throws(WireError) { return try UserName(validating: text) } catch {
            throw Failure(.usage, "\(Printable.text(text)) names no user: \(error.message)")
        }
    }
}
