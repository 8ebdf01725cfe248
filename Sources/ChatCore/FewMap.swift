/// A dictionary that mostly has one entry, or none: it owns no memory for those.
package struct FewMap<Key: Hashable, Value> {
    fileprivate enum Entries {
        case none
        case one(Key, Value)
        /// Two at least.
        case many([Key: Value])
    }

    private var entries = Entries.none

    package init() {}

    package init(_ dictionary: [Key: Value]) {
        if dictionary.count > 1 {
            entries = .many(dictionary)
        } else if let (key, value) = dictionary.first {
            entries = .one(key, value)
        }
    }

    package var count: Int {
        switch entries {
        case .none: 0
        case .one: 1
        case .many(let entries): entries.count
        }
    }

    package var isEmpty: Bool {
        if case .none = entries { true } else { false }
    }

    package subscript(key: Key) -> Value? {
        get {
            switch entries {
            case .none: nil
            case .one(let only, let value): only == key ? value : nil
            case .many(let entries): entries[key]
            }
        }
        set {
            guard let newValue else {
                removeValue(forKey: key)
                return
            }
            switch entries {
            case .none: entries = .one(key, newValue)
            case .one(let only, let value):
                entries = only == key ? .one(key, newValue) : .many([only: value, key: newValue])
            case .many(var many):
                entries = .none
                many[key] = newValue
                entries = .many(many)
            }
        }
    }

    @discardableResult
    package mutating func removeValue(forKey key: Key) -> Value? {
        switch entries {
        case .none: return nil
        case .one(let only, let value):
            guard only == key else { return nil }
            entries = .none
            return value
        case .many(var many):
            entries = .none
            let value = many.removeValue(forKey: key)
            self = many.count > 1 ? FewMap(many: many) : FewMap(many)
            return value
        }
    }

    private init(many: [Key: Value]) { entries = .many(many) }

    package var keys: some Sequence<Key> { lazy.map(\.key) }
    package var values: some Sequence<Value> { lazy.map(\.value) }

    package var dictionary: [Key: Value] {
        switch entries {
        case .none: [:]
        case .one(let key, let value): [key: value]
        case .many(let entries): entries
        }
    }
}

extension FewMap: Sequence {
    package struct Iterator: IteratorProtocol {
        fileprivate var one: (key: Key, value: Value)?
        fileprivate var many: Dictionary<Key, Value>.Iterator?

        package mutating func next() -> (key: Key, value: Value)? {
            guard let entry = one else { return many?.next() }
            one = nil
            return entry
        }
    }

    package func makeIterator() -> Iterator {
        switch entries {
        case .none: Iterator()
        case .one(let key, let value): Iterator(one: (key, value))
        case .many(let entries): Iterator(many: entries.makeIterator())
        }
    }

    package var underestimatedCount: Int { count }
}

/// A set that mostly has one member, or none.
package typealias FewSet<Element: Hashable> = FewMap<Element, Void>

extension FewMap where Value == Void {
    package func contains(_ element: Key) -> Bool { self[element] != nil }
    package mutating func insert(_ element: Key) { self[element] = () }
    package mutating func remove(_ element: Key) { removeValue(forKey: element) }
}

extension FewMap.Entries: Sendable where Key: Sendable, Value: Sendable {}
extension FewMap: Sendable where Key: Sendable, Value: Sendable {}

extension FewMap.Entries: Equatable where Value: Equatable {}
extension FewMap: Equatable where Value: Equatable {}
