package import NIOCore
import RedisClient
package import WireProtocol

extension RoomStore {
    /// Stores and relays a batch in its order, each message once however often it comes within two minutes.
    ///
    /// - Parameters:
    ///   - channels: `nil`: the room's own; else the channels of the users it is meant for.
    ///   - newEpoch: the epoch, should the room be new.
    ///   - timeout: of the command; the connection's own when `nil`.
    /// - Returns: one outcome a message, in order.
    ///
    /// When it fails the batch may have been stored (``RedisError/outcomeIsUnknown``); the same call again is then safe.
    /// An out-of-memory error stored nothing, unless the batch has over 256 messages or the same id twice.
    package func publish(
        to room: RoomName, channels: [String]?, _ batch: [Publication], limits: HistoryLimits, newEpoch: String,
        timeout: TimeAmount? = nil
    ) -> EventLoopFuture<[PublishOutcome]> {
        let piece = Self.piece(of: batch)
        let first = publishPiece(
            to: room, channels: channels, piece, limits: limits, newEpoch: newEpoch, timeout: timeout)
        guard piece.count < batch.count else { return first }
        // One after the other, for the order: a piece that failed must not be overtaken by the next.
        return first.flatMap { outcomes in
            publish(
                to: room, channels: channels, Array(batch[piece.endIndex...]), limits: limits, newEpoch: newEpoch,
                timeout: timeout
            ).map { outcomes + $0 }
        }
    }

    /// The first of a batch, as many as one script takes: up to an id that comes again.
    static func piece(of batch: [Publication]) -> ArraySlice<Publication> {
        guard batch.count > 1 else { return batch[...] }
        var keys = Set<String>(minimumCapacity: min(batch.count, publishChunk))
        let end = batch.prefix(publishChunk).firstIndex { !keys.insert($0.dedupeKey).inserted }
        return batch[..<(end ?? min(batch.count, publishChunk))]
    }

    private static let publishChunk = 256

    private func publishPiece(
        to room: RoomName, channels: [String]?, _ batch: ArraySlice<Publication>, limits: HistoryLimits,
        newEpoch: String, timeout: TimeAmount?
    ) -> EventLoopFuture<[PublishOutcome]> {
        let count = batch.count
        guard count > 0 else { return redis.eventLoop.makeSucceededFuture([]) }
        let scriptKeys: [RedisArgument] = [
            .string(keys.roomMeta(room)), .string(keys.roomLog(room)), .string(keys.roomSent(room)),
            .string(keys.roomSentPrevious(room)),
        ]
        let arguments = Self.publishArguments(
            room, channels: channels ?? [], orChannel: keys.roomChannel(room), batch, limits: limits, newEpoch: newEpoch
        )
        return redis.evaluate(ClusterScripts.roomPublish, keys: scriptKeys, arguments: arguments, timeout: timeout)
            .flatMapThrowing { reply in
                guard let fields = reply.array, fields.count == 3, let epoch = fields[0].string, let ts = fields[1].int
                else { throw ClusterStateError.unexpectedReply(of: "room_publish") }
                if let first = fields[2].int {
                    return (0..<Int64(count)).map { .stored(seq: first + $0, ts: ts, epoch: epoch) }
                }
                guard let outcomes = fields[2].array, outcomes.count == count else {
                    throw ClusterStateError.unexpectedReply(of: "room_publish")
                }
                return try outcomes.map { try Self.outcome($0, epoch: epoch, ts: ts) }
            }
    }

    /// In the order that `room_publish.lua` says.
    static func publishArguments(
        _ room: RoomName, channels: [String], orChannel roomChannel: String, _ batch: ArraySlice<Publication>,
        limits: HistoryLimits, newEpoch: String
    ) -> [RedisArgument] {
        var records = ByteBuffer()
        records.reserveCapacity(batch.reduce(0) { $0 + $1.body.readableBytes + 128 })
        for publication in batch { RecordBatch.append(publication, to: &records) }
        var arguments: [RedisArgument] = [
            .string(newEpoch), .integer(Int64(limits.maxMessages)), .string("\(limits.maxAge) \(limits.afterlife)"),
            .bytes(records), .string(channels.isEmpty ? "" : " \(room.string)"),
            .integer(Int64(max(1, channels.count))),
        ]
        arguments.reserveCapacity(arguments.count + max(1, channels.count) + 1 + batch.count)
        for channel in channels.isEmpty ? [roomChannel] : channels { arguments.append(.string(channel)) }
        let marks = batch.map { "\(String($0.fingerprint, radix: 36)) \($0.tag)\n" }
        arguments.append(.string(marks.joined()))
        for publication in batch { arguments.append(.string(publication.dedupeKey)) }
        return arguments
    }

    private static func outcome(_ reply: RESPValue, epoch: String, ts: Int64) throws -> PublishOutcome {
        switch reply {
        case .integer(0): return .idReused
        case .integer(let seq): return .stored(seq: seq, ts: ts, epoch: epoch)
        case .bulk, .status:
            let words = reply.string?.split(separator: " ") ?? []
            guard words.count == 3, let seq = Int64(words[0]), let firstTS = Int64(words[1]) else { break }
            return .duplicate(seq: seq, ts: firstTS, tag: String(words[2]), epoch: epoch)
        case .null, .error, .array: break
        }
        throw ClusterStateError.unexpectedReply(of: "room_publish")
    }

    /// Relays a typing event: no seq, nothing stored.
    package func typing(room: RoomName, origin: SessionID, frame: ByteBuffer) -> EventLoopFuture<Void> {
        var payload = ByteBuffer(string: RelayMessage.encodeTyping(origin: origin))
        payload.writeImmutableBuffer(frame)
        return redis.command(["PUBLISH", .string(keys.roomChannel(room)), .bytes(payload)]).map { _ in }
    }

    /// Ends an epoch whose log is known to have lost a tail. What it still has stays. Of several that ask for it one turns it.
    ///
    /// - Returns: the epoch that holds now; `nil` when there is no such room.
    package func turnEpoch(room: RoomName, from old: String, to new: String) -> EventLoopFuture<String?> {
        redis.evaluate(
            ClusterScripts.roomTurn,
            keys: [.string(keys.roomMeta(room))],
            arguments: [.string(old), .string(new)]
        ).map { reply in reply.string.flatMap { $0.isEmpty ? nil : $0 } }
    }

    /// A page of the log, oldest first, with the head of the same moment.
    ///
    /// - Parameters:
    ///   - limit: how many messages, 1 to 500.
    ///   - maximumBytes: of what is stored of them, ``pageBytes`` when `nil`; two messages are in a page whatever they weigh.
    ///   - maxAge: milliseconds; nothing older is in it, nor than the age with which the room was last written into.
    package func history(
        room: RoomName, range: HistoryRange, limit: Int, maximumBytes: Int? = nil, maxAge: Int64? = nil
    ) -> EventLoopFuture<HistoryPage> {
        let seqs = range.seqs
        let mostMessages = min(max(limit, 1), Self.chunk)
        let mostBytes = max(maximumBytes ?? pageBytes, 1)
        return redis.evaluate(
            ClusterScripts.roomHistory,
            keys: [.string(keys.roomMeta(room)), .string(keys.roomLog(room))],
            arguments: [
                .string(range.isBackward ? "backward" : "forward"), .integer(seqs.first), .integer(seqs.last),
                .integer(Int64(mostMessages)), .integer(Int64(mostBytes)), maxAge.map { .integer($0) } ?? "",
            ]
        ).flatMapThrowing { reply in
            guard let fields = reply.array else { throw ClusterStateError.unexpectedReply(of: "room_history") }
            guard let head = RoomHead(fields[...]) else { return HistoryPage(head: nil, messages: [], more: false) }
            guard fields.count == 8, let more = fields[5].int, let entries = fields[6].array, let tooOld = fields[7].int
            else { throw ClusterStateError.unexpectedReply(of: "room_history") }
            var page = HistoryPage(head: head, messages: [], more: more == 1)
            if tooOld > 0 { page.tooOld = tooOld }
            for entry in entries { StoredMessage.read(entry: entry, of: seqs, into: &page.messages) }
            page.cut(toLast: range.isBackward, messages: mostMessages, bytes: mostBytes)
            return page
        }
    }

    /// Removes what a read met that is too old, and all before it.
    ///
    /// - Parameter seq: ``HistoryPage/tooOld`` of what was read with this `maxAge`.
    package func trim(room: RoomName, through seq: Int64, maxAge: Int64) -> EventLoopFuture<Void> {
        redis.evaluate(
            ClusterScripts.roomTrim, keys: [.string(keys.roomMeta(room)), .string(keys.roomLog(room))],
            arguments: [.integer(seq), .integer(maxAge)]
        ).map { _ in }
    }
}

extension HistoryRange {
    var isBackward: Bool {
        switch self {
        case .latest, .before: true
        case .after, .range: false
        }
    }

    /// Both ends belong to it; nothing does where the last is before the first.
    var seqs: (first: Int64, last: Int64) {
        switch self {
        case .latest: (0, .max)
        case .before(let seq): (0, max(1, seq) - 1)
        case .after(let seq): (seq < .max ? max(0, seq) + 1 : seq, .max)
        case .range(let from, let to): (max(0, from), max(0, to))
        }
    }
}

extension HistoryPage {
    /// A page ends by its count or by its weight; two messages are in it whatever they weigh.
    fileprivate mutating func cut(toLast isBackward: Bool, messages most: Int, bytes: Int) {
        var (count, left) = (0, bytes)
        for message in isBackward ? messages.reversed() : messages {
            left -= message.weight
            if count == most || (left < 0 && count >= 2) { break }
            count += 1
        }
        guard count < messages.count else { return }
        more = true
        messages = Array(isBackward ? messages.suffix(count) : messages.prefix(count))
    }
}

extension StoredMessage {
    /// About what it takes in Redis.
    fileprivate var weight: Int {
        body.readableBytes + clientID.utf8.count + from.string.utf8.count + origin.utf8.count + 24
    }

    /// Reads `[SEQ-0, [h, TS COUNT, b, RECORDS]]` of XRANGE, where SEQ is that of the last. What no version of this wrote
    /// is left out.
    static func read(
        entry: RESPValue, of seqs: (first: Int64, last: Int64), into messages: inout [StoredMessage]
    ) {
        guard let parts = entry.array, parts.count == 2, let id = parts[0].string, id.hasSuffix("-0"),
            let last = Int64(id.dropLast(2)), let fields = parts[1].array, fields.count >= 4, fields[0].string == "h",
            fields[2].string == "b", let head = fields[1].string?.split(separator: " "), head.count == 2,
            let ts = Int64(head[0]), let count = Int64(head[1]), let records = fields[3].bytes
        else { return }
        var seq = last - count
        _ = records.withUnsafeReadableBytes { bytes in
            RecordBatch.read(bytes) { record in
                seq += 1
                guard seq >= seqs.first, seq <= seqs.last, let name = String(validating: record.user, as: UTF8.self),
                    let user = try? UserName(validating: name)
                else { return }
                messages.append(
                    StoredMessage(
                        seq: seq, tag: record.tag, ts: ts, from: user, origin: record.origin?.string ?? "",
                        clientID: String(decoding: record.clientID, as: UTF8.self), body: ByteBuffer(bytes: record.body)
                    ))
            }
        }
    }
}
