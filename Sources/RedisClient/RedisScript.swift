/// A Lua script, sent by its digest (EVALSHA); the digest is what SCRIPT LOAD answers on each connect.
package struct RedisScript: Sendable {
    /// Tells scripts apart within one client and names them in logs; has nothing to do with Redis.
    package let name: String
    package let source: String

    package init(name: String, source: String) {
        self.name = name
        self.source = source
    }
}
