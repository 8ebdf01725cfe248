#if DEBUG || FUZZING
@testable import ClusterState
import NIOCore
@testable import RedisClient
import WireProtocol

/// What a server that should be Redis sends.
///
/// 1. Replies do not depend on how the bytes come in.
/// 2. A reply of bulks, encoded as a command and read again, is the same.
/// 3. What a subscription would make of it lies within the bytes.
func fuzzReplies(_ bytes: UnsafeRawBufferPointer) throws(FuzzFinding) {
    let whole = try replies([bytes])
    try hold("replies in pieces are the same", whole == replies(bytes.pieces))
    for case .array(let elements)? in whole {
        let arguments = elements.compactMap { element in
            if case .bulk(let bytes) = element { RedisArgument.bytes(bytes) } else { nil }
        }
        guard !arguments.isEmpty, arguments.count == elements.count else { continue }
        var encoder = RESPEncoder()
        encoder.write(arguments)
        var again: [RESPValue?] = []
        let command = Array(encoder.take().readableBytesView)
        var finding: FuzzFinding?
        command.withUnsafeBytes { bytes in
            do throws(FuzzFinding) { again = try replies([bytes]) } catch { finding = error }
        }
        if let finding { throw finding }
        try hold("a command reads as what it was made of", again == [.array(elements)])
    }
}

private func replies(_ pieces: [UnsafeRawBufferPointer]) throws(FuzzFinding) -> [RESPValue?] {
    guard let reader = RedisReplyReader(maximumReplyBytes: 64 * 1024) else { return [] }
    var values: [RESPValue?] = []
    for piece in pieces {
        reader.feed(piece)
        reading: while true {
            switch reader.next() {
            case .reply:
                values.append(reader.value())
                if let push = reader.push() {
                    let bytes = push.word.count + push.channel.count + push.payload.count
                    try hold("a push lies within the bytes", bytes <= pieces.reduce(0) { $0 + $1.count })
                    _ = push.isWord("message")
                }
            case .incomplete: break reading
            case .malformed: return values
            }
        }
    }
    return values
}

/// What stands in channels, logs and hashes: of our own scripts, of another version, or of anybody who may write there.
///
/// 1. It is understood whole or not at all; what is understood lies within the bytes.
/// 2. What is said to be so many messages in a row is that many, each with a seq of its own.
/// 3. A message that is written to a log is read as it was, whatever its id, its user and its body are.
func fuzzRelay(_ bytes: UnsafeRawBufferPointer) throws(FuzzFinding) {
    switch RelayMessage.parse(bytes) {
    case .messages(let messages):
        try hold("there is a message", !messages.isEmpty)
        for (message, next) in zip(messages, messages.dropFirst()) {
            try hold("they are in a row", next.seq == message.seq + 1 && next.previousTag == message.tag)
        }
        try hold("seqs begin at 1", messages.allSatisfy { $0.seq >= 1 && !$0.body.isEmpty })
        try hold("bodies lie within the bytes", messages.reduce(0) { $0 + $1.body.count } <= bytes.count)
    case .presence(let presence): try hold("a change is something", !presence.changes.isEmpty)
    case .typing(_, let frame): try hold("a frame lies within the bytes", frame.count < bytes.count)
    case .kick, .moved, nil: break
    }
    if let order = ControlMessage.parse(bytes) {
        let same = Array(order.description.utf8).withUnsafeBytes { ControlMessage.parse($0) }
        try hold("an order reads as it is written", same == order)
    }
    if let text = bytes.text, let room = try? RoomName(validating: "room") {
        _ = Membership(room: room, session: "AAAAAAAAAAAAAAA", value: text)
    }
    try checkRecord(bytes.lines(3))
}

private func checkRecord(_ parts: [UnsafeRawBufferPointer]) throws(FuzzFinding) {
    guard parts.count == 3, let id = parts[0].text,
        let user = parts[1].text.flatMap({ try? UserName(validating: $0) }),
        !parts[2].isEmpty
    else { return }
    let publication = Publication(
        dedupeKey: "", tag: "tagA", origin: SessionID("AAAAAAAAAAAAAAA"), clientID: id, from: user,
        body: ByteBuffer(bytes: parts[2]))
    var buffer = ByteBuffer()
    for _ in 0..<2 { RecordBatch.append(publication, to: &buffer) }
    var count = 0
    var isSame = true
    let isWhole = buffer.withUnsafeReadableBytes { records in
        RecordBatch.read(records) { record in
            count += 1
            isSame =
                isSame && record.tag == "tagA" && record.origin == publication.origin
                && record.clientID.elementsEqual(id.utf8) && record.user.elementsEqual(user.string.utf8)
                && record.body.elementsEqual(parts[2])
        }
    }
    try hold("a message is read from a log as it was written", isWhole && count == 2 && isSame)
}

/// Two names in two lines.
///
/// 1. A user's name, percent-encoded and read again, is the same; a private room has one name, and tells its two users.
/// 2. Every key of a name is one hash tag, with no second brace, no space and no line end: no name is another's key.
func fuzzNames(_ bytes: UnsafeRawBufferPointer) throws(FuzzFinding) {
    let lines = bytes.lines(2)
    let keys = ClusterKeys(prefix: "p")
    if let text = lines[0].text, let room = try? RoomName(validating: text) {
        try checkKey(keys.roomMeta(room))
        try checkKey(keys.roomChannel(room))
        try hold("a room's name is short", room.string.utf8.count <= 2 * 3 * UserName.maximumLength + 4)
        if let (one, other) = room.participants {
            try hold("a private room has one name", RoomName.direct(other, one) == room)
        }
    }
    if let text = lines[0].text { _ = Incarnation(text) }
    let users = lines.compactMap(\.text).compactMap { try? UserName(validating: $0) }
    for user in users {
        try hold("a name reads as it is encoded", UserName(percentEncoded: user.percentEncoded) == user)
        try checkKey(keys.userSessions(user))
        try hold("a channel tells its user", keys.user(ofChannel: keys.userChannel(user)) == user)
    }
    guard users.count == 2 else { return }
    let room = RoomName.direct(users[0], users[1])
    try hold("who asks makes no difference", room == RoomName.direct(users[1], users[0]))
    try hold("a private room is a room", (try? RoomName(validating: room.string)) == room)
    try checkKey(keys.roomMeta(room))
    try hold(
        "two users have two keys",
        users[0] == users[1] || keys.userSessions(users[0]) != keys.userSessions(users[1]))
}

private func checkKey(_ key: String) throws(FuzzFinding) {
    try hold("a key has one hash tag", key.utf8.filter { $0 == UInt8(ascii: "{") }.count == 1)
    try hold("it ends once", key.utf8.filter { $0 == UInt8(ascii: "}") }.count == 1)
    try hold("a key is one plain word", key.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F })
}
#endif
