import NIOCore
import WireProtocol

/// Messages in a row, as an entry of a room's log holds them and a channel carries them, each as
///
///     TAG ORIGIN IDLEN BODYLEN USER \n ID BODY     (no space around the line end, nor between ID and BODY; ORIGIN - for none)
///
/// Redis stores and relays them without looking at them, whatever their number; who reads numbers them.
enum RecordBatch {
    static func append(_ publication: Publication, to buffer: inout ByteBuffer) {
        buffer.writeString(publication.tag)
        buffer.writeStaticString(" ")
        buffer.writeString(publication.origin?.string ?? "-")
        buffer.writeString(" \(publication.clientID.utf8.count) \(publication.body.readableBytes) ")
        buffer.writeString(publication.from.string)
        buffer.writeStaticString("\n")
        buffer.writeString(publication.clientID)
        buffer.writeImmutableBuffer(publication.body)
    }

    /// The slices are valid for as long as what was parsed.
    struct Record {
        var tag: String
        var origin: SessionID?
        var user: UnsafeRawBufferPointer
        var clientID: UnsafeRawBufferPointer
        var body: UnsafeRawBufferPointer
        /// Of the whole record.
        var bytes: Int
    }

    /// - Returns: false, at the first that is malformed; what comes behind it is lost.
    static func read(_ records: UnsafeRawBufferPointer, _ take: (Record) -> Void) -> Bool {
        var rest = records
        while !rest.isEmpty {
            guard let record = first(of: rest) else { return false }
            take(record)
            rest = UnsafeRawBufferPointer(rebasing: rest[record.bytes...])
        }
        return true
    }

    private static func first(of records: UnsafeRawBufferPointer) -> Record? {
        guard let lineEnd = records.firstIndex(of: UInt8(ascii: "\n")) else { return nil }
        var header = HeaderFields(UnsafeRawBufferPointer(rebasing: records[..<lineEnd]))
        guard let tag = header.text(), let origin = header.bytes(), let idLength = header.number(),
            let bodyLength = header.number(), let user = header.rest(), bodyLength > 0
        else { return nil }
        let left = records.count - lineEnd - 1
        guard idLength <= left, bodyLength <= left - Int(idLength) else { return nil }
        let body = lineEnd + 1 + Int(idLength)
        let end = body + Int(bodyLength)
        return Record(
            tag: tag, origin: SessionID(decoding: origin), user: user,
            clientID: UnsafeRawBufferPointer(rebasing: records[(lineEnd + 1)..<body]),
            body: UnsafeRawBufferPointer(rebasing: records[body..<end]), bytes: end)
    }
}

/// Reads fields that single spaces part. Numbers are plain decimal, not negative, of at most 18 digits.
struct HeaderFields {
    private let fields: UnsafeRawBufferPointer
    private var index = 0
    private(set) var isAtEnd = false

    init(_ fields: UnsafeRawBufferPointer) {
        self.fields = fields
    }

    mutating func bytes() -> UnsafeRawBufferPointer? {
        guard !isAtEnd else { return nil }
        let start = index
        while index < fields.count, fields[index] != UInt8(ascii: " ") { index += 1 }
        let field = UnsafeRawBufferPointer(rebasing: fields[start..<index])
        if index == fields.count {
            isAtEnd = true
        } else {
            index += 1
        }
        return field.isEmpty ? nil : field
    }

    mutating func text() -> String? {
        bytes().flatMap { String(validating: $0, as: UTF8.self) }
    }

    mutating func number() -> Int64? {
        guard let field = bytes(), field.count <= 18 else { return nil }
        var value: Int64 = 0
        for byte in field {
            guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else { return nil }
            value = value * 10 + Int64(byte - UInt8(ascii: "0"))
        }
        return value
    }

    /// All that is left, spaces too.
    mutating func rest() -> UnsafeRawBufferPointer? {
        guard !isAtEnd, index < fields.count else { return nil }
        isAtEnd = true
        return UnsafeRawBufferPointer(rebasing: fields[index...])
    }
}
