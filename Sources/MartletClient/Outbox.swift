/// Own messages without an ack, oldest first. Each keeps its id however often it is sent, so the server stores it once.
///
/// 1. Paces: messages go in order, few enough at once and slowly enough that the server has no reason to refuse one.
/// 2. After a refusal that may pass, only the first of that room goes, and the others when it is stored.
/// 3. Knows of each message whether it may be stored: what was refused for certain is as if it was never sent.
struct Outbox: Equatable {
    enum Destination: Hashable {
        case room(String)
        /// The private room with this user.
        case user(String)
    }

    struct Entry: Equatable {
        let id: String
        let to: Destination
        let text: String?
        let data: String?
        /// What is sent, each time.
        let frame: [UInt8]
        /// Milliseconds; `nil` while it waits.
        fileprivate(set) var sentAt: Int64?
        /// Since when it may be stored; `nil` when it was never sent, or refused each time.
        fileprivate(set) var doubtfulSince: Int64?
        /// How often it was sent without an answer to it.
        fileprivate var unanswered = 0
        /// Sent alone after a refusal.
        fileprivate var isProbe = false

        init(id: String, to destination: Destination, text: String?, data: String?) {
            self.id = id
            to = destination
            self.text = text
            self.data = data
            frame = ClientFrame.message(to: destination, text: text, data: data, id: id)
        }

        /// `nil` of a private one, whose name the server knows.
        var room: String? {
            if case .room(let name) = to { name } else { nil }
        }

        fileprivate func isInFlight(now: Int64) -> Bool {
            sentAt.map { now - $0 <= Outbox.ackPatience } ?? false
        }
    }

    /// The server knows an id for two minutes; sent later, the message could be stored twice.
    static let resendWindow: Int64 = 110_000
    /// Without an ack for so long on an open connection, it is sent again.
    static let ackPatience: Int64 = 10_000
    /// In flight at most, where the server does not count; where it does, ``Pace/burst``.
    static let window = (messages: 64, bytes: 256 * 1024)

    private(set) var entries: [Entry] = []
    /// Of all frames in ``entries``.
    private(set) var bytes = 0
    var pace = Pace()
    /// Where a message was refused for now, and until when nothing is sent there.
    private var holds: [Destination: Int64] = [:]

    subscript(id: String) -> Entry? {
        entries.first { $0.id == id }
    }

    mutating func add(_ entry: Entry) {
        entries.append(entry)
        bytes += entry.frame.count
    }

    /// A session begins: nothing is on its way in it.
    mutating func begin(_ pace: Pace) {
        self.pace = pace
    }

    @discardableResult
    mutating func remove(_ id: String) -> Entry? {
        guard let index = entries.firstIndex(where: { $0.id == id }) else { return nil }
        let entry = entries.remove(at: index)
        bytes -= entry.frame.count
        if entry.isProbe { holds[entry.to] = nil }
        return entry
    }

    /// Takes out all of a room, or all.
    mutating func removeAll(in room: String?) -> [Entry] {
        if let room { holds[.room(room)] = nil } else { holds = [:] }
        return removeAll { room == nil || $0.room == room }
    }

    /// Takes out what is larger than the server takes.
    mutating func removeAll(over bytes: Int64) -> [Entry] {
        removeAll { $0.frame.count > bytes }
    }

    /// Of what is in flight the one that was too large, if one was.
    mutating func removeLargestInFlight() -> Entry? {
        entries.filter { $0.sentAt != nil }.max { $0.frame.count < $1.frame.count }.flatMap { remove($0.id) }
    }

    private mutating func removeAll(where isGone: (Entry) -> Bool) -> [Entry] {
        let gone = entries.filter(isGone)
        for entry in gone where entry.isProbe { holds[entry.to] = nil }
        for entry in gone { bytes -= entry.frame.count }
        if !gone.isEmpty { entries.removeAll(where: isGone) }
        return gone
    }

    /// What is to be sent now, in order, of the rooms that are open; from here on it is in flight.
    /// - Returns: also after how many milliseconds there may be more, unless an ack comes first.
    mutating func takeDue(now: Int64, isOpen: (Destination) -> Bool) -> (entries: [Entry], wait: Int64?) {
        var due: [Entry] = []
        var waits: [Int64] = []
        var flying = (messages: 0, bytes: 0)
        var seen: Set<Destination> = []
        let most = pace.isLimited ? Int(Pace.burst) : Self.window.messages
        for index in entries.indices {
            let entry = entries[index]
            let isFirst = seen.insert(entry.to).inserted
            guard !entry.isInFlight(now: now) else {
                flying = (flying.messages + 1, flying.bytes + entry.frame.count)
                continue
            }
            guard isOpen(entry.to) else { continue }
            if let hold = holds[entry.to] {
                guard isFirst else { continue }
                guard now >= hold else {
                    waits.append(hold - now)
                    continue
                }
            }
            guard
                flying.messages == 0
                    || flying.messages < most
                        && flying.bytes + entry.frame.count <= Self.window.bytes
            else { break }
            if let wait = pace.take(now: now) {
                waits.append(wait)
                break
            }
            flying = (flying.messages + 1, flying.bytes + entry.frame.count)
            entries[index].sentAt = now
            entries[index].doubtfulSince = entry.doubtfulSince ?? now
            entries[index].unanswered += 1
            entries[index].isProbe = holds[entry.to] != nil
            due.append(entries[index])
        }
        return (due, waits.min())
    }

    enum Refusal {
        /// Not even looked at.
        case tooFast
        case notStored
        /// The server does not know whether it stored it.
        case perhapsStored
    }

    /// The server refused it for now.
    mutating func putBack(_ id: String, _ refusal: Refusal, now: Int64, until: Int64) {
        guard let index = entries.firstIndex(where: { $0.id == id }) else { return }
        if refusal == .tooFast { pace.refused(now: now) }
        holds[entries[index].to] = max(until, holds[entries[index].to] ?? until)
        entries[index].sentAt = nil
        entries[index].isProbe = false
        guard refusal != .perhapsStored, entries[index].unanswered > 0 else { return }
        entries[index].unanswered -= 1
        if entries[index].unanswered == 0 { entries[index].doubtfulSince = nil }
    }

    mutating func connectionLost() {
        holds = [:]
        for index in entries.indices {
            entries[index].sentAt = nil
            entries[index].isProbe = false
        }
    }

    /// Takes out what can no longer be sent under its id.
    mutating func expire(now: Int64) -> [Entry] {
        removeAll { entry in entry.doubtfulSince.map { now - $0 > Self.resendWindow } ?? false }
    }
}
