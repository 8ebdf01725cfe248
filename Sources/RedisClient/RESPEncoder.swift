import NIOCore

/// Writes commands as RESP arrays of bulk strings, straight into the buffer that goes to the socket.
struct RESPEncoder {
    private(set) var buffer = ByteBuffer()

    /// Larger buffers are not kept from one flush to the next.
    private static let keptCapacity = 256 * 1024

    var isEmpty: Bool { buffer.readableBytes == 0 }

    mutating func write(_ arguments: [RedisArgument]) {
        writeArrayHeader(arguments.count)
        for argument in arguments {
            writeBulk(argument)
        }
    }

    mutating func writeEvaluation(
        of command: String,
        _ script: String,
        keys: [RedisArgument],
        arguments: [RedisArgument]
    ) {
        writeArrayHeader(3 + keys.count + arguments.count)
        writeBulk(.string(command))
        writeBulk(.string(script))
        writeBulk(.integer(Int64(keys.count)))
        for key in keys {
            writeBulk(key)
        }
        for argument in arguments {
            writeBulk(argument)
        }
    }

    /// What was written since the last call.
    mutating func take() -> ByteBuffer {
        let taken = buffer
        buffer = ByteBuffer()
        return taken
    }

    /// To be called once the taken bytes were handed to the channel: writes on in the same memory when the channel is
    /// done with it.
    mutating func reuse(_ taken: consuming ByteBuffer) {
        guard isEmpty, taken.capacity <= Self.keptCapacity else { return }
        buffer = taken
        buffer.clear()
    }

    private mutating func writeArrayHeader(_ count: Int) {
        writePrefixed(UInt8(ascii: "*"), Int64(count))
    }

    private mutating func writeBulk(_ argument: RedisArgument) {
        switch argument {
        case .string(let text):
            writePrefixed(UInt8(ascii: "$"), Int64(text.utf8.count))
            buffer.writeString(text)
        case .bytes(let bytes):
            writePrefixed(UInt8(ascii: "$"), Int64(bytes.readableBytes))
            buffer.writeImmutableBuffer(bytes)
        case .integer(let value):
            let digits = Self.decimalLength(value)
            writePrefixed(UInt8(ascii: "$"), Int64(digits))
            writeDecimal(value, length: digits)
        }
        buffer.writeRepeatingByte(UInt8(ascii: "\r"), count: 1)
        buffer.writeRepeatingByte(UInt8(ascii: "\n"), count: 1)
    }

    private mutating func writePrefixed(_ prefix: UInt8, _ value: Int64) {
        let digits = Self.decimalLength(value)
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: digits + 3) { target in
            target[0] = prefix
            Self.putDecimal(value, length: digits, into: target, at: 1)
            target[digits + 1] = UInt8(ascii: "\r")
            target[digits + 2] = UInt8(ascii: "\n")
            return digits + 3
        }
    }

    private mutating func writeDecimal(_ value: Int64, length: Int) {
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: length) { target in
            Self.putDecimal(value, length: length, into: target, at: 0)
            return length
        }
    }

    private static func decimalLength(_ value: Int64) -> Int {
        var rest = value.magnitude / 10
        var length = value < 0 ? 2 : 1
        while rest > 0 {
            length += 1
            rest /= 10
        }
        return length
    }

    private static func putDecimal(
        _ value: Int64,
        length: Int,
        into target: UnsafeMutableRawBufferPointer,
        at start: Int
    ) {
        var rest = value.magnitude
        var index = start + length - 1
        repeat {
            target[index] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: rest % 10)
            rest /= 10
            index -= 1
        } while rest > 0
        if value < 0 {
            target[start] = UInt8(ascii: "-")
        }
    }
}
