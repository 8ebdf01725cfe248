import ChatCore
import Testing

@testable import NodeServer

@Suite("Maps for one entry a connection")
struct PackedMapTests {
    /// So that many keys ask for the same place.
    private struct Key: Hashable {
        let number: Int
        func hash(into hasher: inout Hasher) { hasher.combine(number % 7) }
    }

    @Test("a packed map does what a dictionary does, whatever comes and goes")
    func packed() {
        var random = FastRandom(seed: 7)
        var map = PackedMap<Key, [Int]>()
        var model: [Key: [Int]] = [:]
        for step in 0..<20_000 {
            let key = Key(number: Int(random.next() % (step < 10_000 ? 400 : 40)))
            switch random.next() % 5 {
            case 0: #expect(map.removeValue(forKey: key) == model.removeValue(forKey: key))
            case 1:
                map[key]?.append(step)
                model[key]?.append(step)
            case 2:
                map[key] = nil
                model[key] = nil
            default:
                map[key] = [step]
                model[key] = [step]
            }
            #expect(map[key] == model[key])
            #expect(map.count == model.count && map.isEmpty == model.isEmpty)
        }
        #expect(Dictionary(uniqueKeysWithValues: map.map { ($0, $1) }) == model)
        #expect(Set(map.keys) == Set(model.keys))
        for key in Array(map.keys) { map[key] = nil }
        #expect(map.isEmpty && map[Key(number: 1)] == nil)
    }

    @Test("an entry may change while a packed map is walked")
    func walked() {
        var map = PackedMap<Int, Int>()
        for number in 0..<200 { map[number] = number }
        for (key, value) in map { map[key] = value * 2 }
        #expect((0..<200).allSatisfy { map[$0] == $0 * 2 })
    }

    @Test("a copy of a packed map is its own")
    func copied() {
        var map = PackedMap<Int, String>()
        map[1] = "one"
        let copy = map
        map[1]? += "!"
        map[2] = "two"
        #expect(copy[1] == "one" && copy[2] == nil && copy.count == 1)
        #expect(map[1] == "one!" && map.count == 2)
    }
}
