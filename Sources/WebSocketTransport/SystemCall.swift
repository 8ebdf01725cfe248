import Glibc
import NIOCore

/// System calls whose failure is thrown.
package enum SystemCall {
    /// - Parameters:
    ///   - name: of the call, for the error.
    ///   - result: what it returned, less than 0 where it failed.
    /// - Throws: `IOError` of errno.
    @discardableResult
    package static func check(_ name: String, _ result: CInt) throws -> CInt {
        guard result >= 0 else { throw IOError(errnoCode: errno, reason: name) }
        return result
    }

    /// getsockopt(2) of an `int`, at the level SOL_SOCKET.
    package static func option(_ option: CInt, of descriptor: CInt) throws -> CInt {
        var value: CInt = 0
        var length = socklen_t(MemoryLayout<CInt>.size)
        try check("getsockopt", getsockopt(descriptor, SOL_SOCKET, option, &value, &length))
        return value
    }

    /// setsockopt(2) of an `int`.
    package static func set(_ level: CInt, _ option: CInt, to value: CInt, of descriptor: CInt) throws {
        var value = value
        try check("setsockopt", setsockopt(descriptor, level, option, &value, socklen_t(MemoryLayout<CInt>.size)))
    }
}
