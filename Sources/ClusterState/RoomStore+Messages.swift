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
    /// An out-of-memory error stored nothing, unless the batch has over 128 messages.
    package func publish(
        to room: RoomName, channels: [String]?, _ batch: [Publication], limits: HistoryLimits, newEpoch: String,
        timeout: TimeAmount? = nil
    ) -> EventLoopFuture<[PublishOutcome]> {
        guard batch.count > Self.publishChunk else {
            return publishChunk(
                to: room, channels: channels, batch[...], limits: limits, newEpoch: newEpoch, timeout: timeout)
        }
        // One after the other, for the order: a piece that failed must not be overtaken by the next.
        let first = publishChunk(
            to: room, channels: channels, batch.prefix(Self.publishChunk), limits: limits, newEpoch: newEpoch,
            timeout: timeout)
        return first.flatMap { outcomes in
            publish(
                to: room, channels: channels, Array(batch.dropFirst(Self.publishChunk)), limits: limits,
                newEpoch: newEpoch, timeout: timeout
            ).map { outcomes + $0 }
        }
    }

    private static let publishChunk = 128

    private func publishChunk(
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
                guard let fields = reply.array, fields.count == count + 2, let epoch = fields[0].string,
                    let ts = fields[1].int
                else { throw ClusterStateError.unexpectedReply(of: "room_publish") }
                return try fields.dropFirst(2).map { try Self.outcome($0, epoch: epoch, ts: ts) }
            }
    }

    /// In the order that `room_publish.lua` says.
    static func publishArguments(
        _ room: RoomName, channels: [String], orChannel roomChannel: String, _ batch: ArraySlice<Publication>,
        limits: HistoryLimits, newEpoch: String
    ) -> [RedisArgument] {
        var arguments: [RedisArgument] = []
        arguments.reserveCapacity(6 + channels.count + batch.count * 6)
        arguments.append(.string(#"{"type":"message","room":""# + room.string + #"","seq":"#))
        arguments.append(.string(newEpoch))
        arguments.append(.integer(Int64(limits.maxMessages)))
        arguments.append(.string("\(limits.maxAge) \(limits.afterlife)"))
        arguments.append(.integer(Int64(channels.count)))
        for channel in channels.isEmpty ? [roomChannel] : channels { arguments.append(.string(channel)) }
        for publication in batch {
            arguments.append(.string(publication.dedupeKey))
            arguments.append(.string(String(publication.fingerprint, radix: 36)))
            arguments.append(.string(publication.tag))
            arguments.append(.string(head(of: publication)))
            arguments.append(.string(publication.from.string))
            arguments.append(.bytes(publication.body))
        }
        return arguments
    }

    /// What log and relay share: who gets the ack, and under which id.
    private static func head(of publication: Publication) -> String {
        let origin = publication.origin?.string ?? "-"
        return "\(origin) \(publication.clientID.utf8.count)\n\(publication.clientID)"
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
    package func history(
        room: RoomName, range: HistoryRange, limit: Int, maximumBytes: Int? = nil
    ) -> EventLoopFuture<HistoryPage> {
        let bounds: (direction: String, start: String, end: String) =
            switch range {
            case .latest: ("backward", "+", "-")
            case .before(let seq): ("backward", "(\(max(1, seq))-0", "-")
            case .after(let seq): ("forward", "(\(max(0, seq))-0", "+")
            case .range(let from, let to): ("forward", "\(max(0, from))-0", "\(max(0, to))-0")
            }
        return redis.evaluate(
            ClusterScripts.roomHistory,
            keys: [.string(keys.roomMeta(room)), .string(keys.roomLog(room))],
            arguments: [
                .string(bounds.direction), .string(bounds.start), .string(bounds.end),
                .integer(Int64(min(max(limit, 1), Self.chunk))), .integer(Int64(max(maximumBytes ?? pageBytes, 1))),
            ]
        ).flatMapThrowing { reply in
            guard let fields = reply.array else { throw ClusterStateError.unexpectedReply(of: "room_history") }
            guard let head = RoomHead(fields[...]) else { return HistoryPage(head: nil, messages: [], more: false) }
            guard fields.count == 7, let more = fields[5].int, let entries = fields[6].array else {
                throw ClusterStateError.unexpectedReply(of: "room_history")
            }
            return HistoryPage(
                head: head, messages: entries.compactMap(StoredMessage.init(entry:)), more: more == 1)
        }
    }
}

extension StoredMessage {
    /// Reads `[id, [field, value, …]]` of XRANGE: `h` is `TS TAG USER`, `ORIGIN IDLEN` and the id, one a line; `b` the body.
    init?(entry: RESPValue) {
        guard let parts = entry.array, parts.count == 2, let id = parts[0].string, id.hasSuffix("-0"),
            let seq = Int64(id.dropLast(2)), let fields = parts[1].array, fields.count >= 4, fields[0].string == "h",
            fields[2].string == "b", let head = fields[1].string, let body = fields[3].bytes
        else { return nil }
        let lines = head.split(separator: "\n", maxSplits: 2, omittingEmptySubsequences: false)
        guard lines.count == 3 else { return nil }
        let first = lines[0].split(separator: " ", maxSplits: 2, omittingEmptySubsequences: false)
        guard first.count == 3, let ts = Int64(first[0]), let from = try? UserName(validating: String(first[2])),
            let origin = lines[1].split(separator: " ").first
        else { return nil }
        self.init(
            seq: seq, tag: String(first[1]), ts: ts, from: from, origin: origin == "-" ? "" : String(origin),
            clientID: String(lines[2]), body: body)
    }
}
