package import RedisClient

/// The scripts of `Scripts/`, ready for ``RedisClient``.
///
/// A script is the file of its name; a line `-- include: NAME` in it stands for `fragment_NAME.lua`.
package enum ClusterScripts {
    /// Every script there is. A client that the stores use must be created with them.
    package static let all: [RedisScript] = [
        incarnationNext, nodesHint, nodeRegister, nodeHeartbeat, nodeAddRoom, nodeAddSession, nodeDrain, nodeUndrain,
        nodeClaim, nodeSwept, nodeRead, roomJoin, roomLeave, roomStatus, roomSweep, roomPublish, roomHistory,
        roomPresence,
        roomTrim, roomTurn, sessionOwn, sessionSet, sessionDetach, sessionResume, sessionConfirm, sessionAdopt,
        sessionRelease,
        userOwn, userRelease, userDirect, userDirects, userRate, ordersPut, ordersLift, ordersHead, ordersExpire,
        routerTell, routersRead,
        auditNode,
    ]

    static let incarnationNext = script("incarnation_next", PackageResources.incarnation_next_lua)
    static let nodesHint = script("nodes_hint", PackageResources.nodes_hint_lua)
    static let nodeRegister = script("node_register", PackageResources.node_register_lua)
    static let nodeHeartbeat = script("node_heartbeat", PackageResources.node_heartbeat_lua)
    static let nodeAddRoom = script("node_add_room", PackageResources.node_add_room_lua)
    static let nodeAddSession = script("node_add_session", PackageResources.node_add_session_lua)
    static let nodeDrain = script("node_drain", PackageResources.node_drain_lua)
    static let nodeUndrain = script("node_undrain", PackageResources.node_undrain_lua)
    static let nodeClaim = script("node_claim", PackageResources.node_claim_lua)
    static let nodeSwept = script("node_swept", PackageResources.node_swept_lua)
    static let nodeRead = script("node_read", PackageResources.node_read_lua)
    static let roomJoin = script("room_join", PackageResources.room_join_lua)
    static let roomLeave = script("room_leave", PackageResources.room_leave_lua)
    static let roomStatus = script("room_status", PackageResources.room_status_lua)
    static let roomSweep = script("room_sweep", PackageResources.room_sweep_lua)
    static let roomPublish = script("room_publish", PackageResources.room_publish_lua)
    static let roomHistory = script("room_history", PackageResources.room_history_lua)
    static let roomPresence = script("room_presence", PackageResources.room_presence_lua)
    static let roomTrim = script("room_trim", PackageResources.room_trim_lua)
    static let roomTurn = script("room_turn", PackageResources.room_turn_lua)
    static let sessionOwn = script("session_own", PackageResources.session_own_lua)
    static let sessionSet = script("session_set", PackageResources.session_set_lua)
    static let sessionDetach = script("session_detach", PackageResources.session_detach_lua)
    static let sessionResume = script("session_resume", PackageResources.session_resume_lua)
    static let sessionConfirm = script("session_confirm", PackageResources.session_confirm_lua)
    static let sessionAdopt = script("session_adopt", PackageResources.session_adopt_lua)
    static let sessionRelease = script("session_release", PackageResources.session_release_lua)
    static let userOwn = script("user_own", PackageResources.user_own_lua)
    static let userRelease = script("user_release", PackageResources.user_release_lua)
    static let userDirect = script("user_direct", PackageResources.user_direct_lua)
    static let userDirects = script("user_directs", PackageResources.user_directs_lua)
    static let userRate = script("user_rate", PackageResources.user_rate_lua)
    static let ordersPut = script("orders_put", PackageResources.orders_put_lua)
    static let auditNode = script("audit_node", PackageResources.audit_node_lua)
    static let ordersLift = script("orders_lift", PackageResources.orders_lift_lua)
    static let ordersHead = script("orders_head", PackageResources.orders_head_lua)
    static let ordersExpire = script("orders_expire", PackageResources.orders_expire_lua)
    static let routerTell = script("router_tell", PackageResources.router_tell_lua)
    static let routersRead = script("routers_read", PackageResources.routers_read_lua)

    private static let fragments = [
        "presence": PackageResources.fragment_presence_lua, "session": PackageResources.fragment_session_lua,
    ].map { ("-- include: \($0)", String(decoding: $1, as: UTF8.self)) }

    private static func script(_ name: String, _ bytes: [UInt8]) -> RedisScript {
        RedisScript(name: name, source: expand(String(decoding: bytes, as: UTF8.self)))
    }

    private static func expand(_ source: String) -> String {
        source.split(separator: "\n", omittingEmptySubsequences: false)
            .map { line in fragments.first { $0.0 == line }.map { Substring($0.1) } ?? line }
            .joined(separator: "\n")
    }
}
