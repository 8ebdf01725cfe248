/// A dictionary for one entry a connection. `Dictionary` keeps up to three places for each of its entries, each as large as
/// key and value, and copies all of them when it grows; this one keeps its entries in pages without gaps, and finds them by
/// an index of four bytes a place. It gives memory back when entries go.
///
/// The order of the entries changes with each removal. Holds at most 2^32 - 2 entries.
/// It stands in this module, and not among the other values, so that the compiler makes one of each kind of entry.
struct PackedMap<Key: Hashable, Value> {
    private typealias Row = (key: Key, value: Value?)

    /// Entries of one page.
    private static var pageRows: Int { 64 }

    /// All but the last are full.
    private var pages: [ContiguousArray<Row>] = []
    /// The number of a row, rising from 1, at the place of its key's hash or behind that; 0: free. A power of two, at most
    /// two thirds full.
    private var places: ContiguousArray<UInt32> = []
    private(set) var count = 0

    init() {}

    var isEmpty: Bool { count == 0 }

    subscript(key: Key) -> Value? {
        get { place(of: key).flatMap { value(at: row(at: $0)) } }
        _modify {
            // Taken out meanwhile, so that what it owns is not copied when it changes.
            let place = place(of: key)
            var value: Value?
            if let place { swapValue(&value, at: row(at: place)) }
            defer {
                switch (place, value == nil) {
                case (let place?, false): swapValue(&value, at: row(at: place))
                case (let place?, true): remove(at: place)
                case (nil, false): insert(key, value)
                case (nil, true): break
                }
            }
            yield &value
        }
    }

    @discardableResult
    mutating func removeValue(forKey key: Key) -> Value? {
        guard let place = place(of: key) else { return nil }
        var value: Value?
        swapValue(&value, at: row(at: place))
        remove(at: place)
        return value
    }

    var keys: some Sequence<Key> { lazy.map(\.key) }
    var values: some Sequence<Value> { lazy.map(\.value) }

    // MARK: Rows

    private func value(at row: Int) -> Value? { pages[row / Self.pageRows][row % Self.pageRows].value }

    private mutating func swapValue(_ value: inout Value?, at row: Int) {
        swap(&value, &pages[row / Self.pageRows][row % Self.pageRows].value)
    }

    private func key(at row: Int) -> Key { pages[row / Self.pageRows][row % Self.pageRows].key }

    private mutating func insert(_ key: Key, _ value: Value?) {
        if (count + 1) * 3 > places.count * 2 { index(in: places.isEmpty ? 8 : places.count * 2) }
        if count % Self.pageRows == 0 {
            pages.append([])
            // The first one grows with its entries.
            if count > 0 { pages[pages.count - 1].reserveCapacity(Self.pageRows) }
        }
        pages[pages.count - 1].append((key, value))
        count += 1
        occupy(UInt32(count), for: key)
    }

    /// The last row takes the place of the one that goes.
    private mutating func remove(at place: Int) {
        let row = row(at: place)
        free(place)
        let last = count - 1
        if row != last, let moved = self.place(of: key(at: last)) {
            places[moved] = UInt32(row + 1)
            pages[row / Self.pageRows][row % Self.pageRows] = pages[last / Self.pageRows][last % Self.pageRows]
        }
        pages[pages.count - 1].removeLast()
        count = last
        if pages[pages.count - 1].isEmpty { pages.removeLast() }
        if places.count > 64, count * 8 < places.count { index(in: places.count / 4) }
    }

    // MARK: Places

    private func row(at place: Int) -> Int { Int(places[place]) - 1 }

    private func place(of key: Key) -> Int? {
        guard count > 0 else { return nil }
        let mask = places.count - 1
        var place = key.hashValue & mask
        while places[place] != 0 {
            if self.key(at: row(at: place)) == key { return place }
            place = (place + 1) & mask
        }
        return nil
    }

    private mutating func occupy(_ number: UInt32, for key: Key) {
        let mask = places.count - 1
        var place = key.hashValue & mask
        while places[place] != 0 { place = (place + 1) & mask }
        places[place] = number
    }

    /// Moves those behind it that could not stand where they belong, so that no search ends before them.
    private mutating func free(_ place: Int) {
        let mask = places.count - 1
        var free = place
        var next = (place + 1) & mask
        while places[next] != 0 {
            let home = key(at: row(at: next)).hashValue & mask
            if (next - home) & mask >= (next - free) & mask {
                places[free] = places[next]
                free = next
            }
            next = (next + 1) & mask
        }
        places[free] = 0
    }

    private mutating func index(in size: Int) {
        places = ContiguousArray(repeating: 0, count: size)
        for row in 0..<count { occupy(UInt32(row + 1), for: key(at: row)) }
    }
}

extension PackedMap: Sequence {
    struct Iterator: IteratorProtocol {
        fileprivate let map: PackedMap
        fileprivate var row = 0

        mutating func next() -> (key: Key, value: Value)? {
            guard row < map.count, let value = map.value(at: row) else { return nil }
            defer { row += 1 }
            return (map.key(at: row), value)
        }
    }

    func makeIterator() -> Iterator { Iterator(map: self) }
    var underestimatedCount: Int { count }
}

extension PackedMap: Sendable where Key: Sendable, Value: Sendable {}
