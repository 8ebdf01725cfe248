/// Own messages without an ack, oldest first. Each keeps its id however often it is sent, so the server stores it once.
struct Outbox: Equatable {
    struct Entry: Equatable {
        let id: String
        let room: String
        let text: String?
        let data: String?
        fileprivate(set) var isInFlight = false
        /// Milliseconds; `nil` until it was sent for the first time.
        fileprivate(set) var firstSentAt: Int64?
        fileprivate(set) var lastSentAt: Int64 = 0

        init(id: String, room: String, text: String?, data: String?) {
            self.id = id
            self.room = room
            self.text = text
            self.data = data
        }
    }

    /// The server knows an id for two minutes; sent later, the message could be stored twice.
    static let resendWindow: Int64 = 110_000
    /// Without an ack for so long on an open connection, it is sent again.
    static let ackPatience: Int64 = 10_000

    private(set) var entries: [Entry] = []

    subscript(id: String) -> Entry? {
        entries.first { $0.id == id }
    }

    mutating func add(_ entry: Entry) {
        entries.append(entry)
    }

    @discardableResult
    mutating func remove(_ id: String) -> Entry? {
        guard let index = entries.firstIndex(where: { $0.id == id }) else { return nil }
        return entries.remove(at: index)
    }

    mutating func removeAll(in room: String?) -> [Entry] {
        let removed = entries.filter { room == nil || $0.room == room }
        entries.removeAll { room == nil || $0.room == room }
        return removed
    }

    /// What of a room is to be sent now, in order; from here on it is in flight.
    mutating func takeDue(in room: String, now: Int64) -> [Entry] {
        var due: [Entry] = []
        for index in entries.indices where entries[index].room == room && !entries[index].isInFlight {
            entries[index].isInFlight = true
            entries[index].firstSentAt = entries[index].firstSentAt ?? now
            entries[index].lastSentAt = now
            due.append(entries[index])
        }
        return due
    }

    /// The server refused it for now.
    mutating func putBack(_ id: String) {
        guard let index = entries.firstIndex(where: { $0.id == id }) else { return }
        entries[index].isInFlight = false
    }

    mutating func connectionLost() {
        for index in entries.indices { entries[index].isInFlight = false }
    }

    /// Takes out what can no longer be sent under its id, and puts back what waits too long for its ack.
    mutating func expire(now: Int64) -> [Entry] {
        for index in entries.indices where now - entries[index].lastSentAt > Self.ackPatience {
            entries[index].isInFlight = false
        }
        let isExpired = { (entry: Entry) in entry.firstSentAt.map { now - $0 > Self.resendWindow } ?? false }
        let expired = entries.filter(isExpired)
        entries.removeAll(where: isExpired)
        return expired
    }
}
