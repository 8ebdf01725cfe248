import CLinux
import Glibc

/// The Unix sockets (unix(7), SOCK_SEQPACKET) over which a router gives accepted connections to a node of the same host.
///
/// The name is abstract, made of the address that the node is dialled at: whoever reaches it is in the node's network
/// namespace, and nothing is left behind in a file system. Both ends look at the other's user: no other user's process gets a
/// connection, or gives one. The number in it is the version of what follows: two that do not speak the same do not meet.
///
/// 1. The router says ``hello``, and sends the receiving end of a ``HandoverQueue`` along, of which it keeps a copy.
/// 2. The node answers each message that it received from there with one byte, in their order.
/// 3. The node's end is at the end of the socket, the router's at that of the queue.
enum HandoverSocket {
    static let hello = UInt8(ascii: "h")
    static let taken = UInt8(ascii: "+")
    static let refused = UInt8(ascii: "-")
    /// A head (64 KiB) and what was read behind it.
    static let mostBytes = 160 * 1024

    /// - Returns: nil where the address is too long for a name.
    private static func withName<Result>(
        of address: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
    ) -> Result? {
        let name = Array("martlet handover 2 \(address)".utf8)
        var socket = sockaddr_un()
        socket.sun_family = sa_family_t(AF_UNIX)
        let path = MemoryLayout<sa_family_t>.size
        guard path + 1 + name.count <= MemoryLayout<sockaddr_un>.size else { return nil }
        return withUnsafeMutableBytes(of: &socket) { bytes in
            // The first byte of the path stays 0.
            for (index, byte) in name.enumerated() { bytes[path + 1 + index] = byte }
            guard let base = bytes.baseAddress else { return nil }
            return body(base.assumingMemoryBound(to: sockaddr.self), socklen_t(path + 1 + name.count))
        }
    }

    private static func make(_ call: (CInt, UnsafePointer<sockaddr>, socklen_t) -> Bool, _ address: String) -> CInt? {
        let type = Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        let descriptor = socket(AF_UNIX, type, 0)
        guard descriptor >= 0 else { return nil }
        guard withName(of: address, { call(descriptor, $0, $1) }) == true else {
            close(descriptor)
            return nil
        }
        return descriptor
    }

    static func listen(at address: String) -> CInt? {
        // All loops of all routers may come at once.
        make({ bind($0, $1, $2) == 0 && Glibc.listen($0, 1024) == 0 }, address)
    }

    /// Without waiting: nil also where the node has left too many waiting (unix(7), EAGAIN).
    static func connect(to address: String) -> CInt? {
        guard let descriptor = make({ Glibc.connect($0, $1, $2) == 0 }, address) else { return nil }
        guard isOfOwnUser(descriptor) else {
            close(descriptor)
            return nil
        }
        return descriptor
    }

    static func isOfOwnUser(_ descriptor: CInt) -> Bool {
        // struct ucred: process, user, group.
        var credentials: (CInt, CInt, CInt) = (0, -1, -1)
        var length = socklen_t(12)
        return getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0
            && UInt32(bitPattern: credentials.1) == geteuid()
    }
}
