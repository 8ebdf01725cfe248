import ChatCore
import Testing

@Suite("Maps that mostly have one entry")
struct FewMapTests {
    @Test("a map of few does what a dictionary does, with none, one and many")
    func few() {
        var random = FastRandom(seed: 9)
        var map = FewMap<Int, Int>()
        var model: [Int: Int] = [:]
        for step in 0..<2000 {
            let key = Int(random.next() % 3)
            if random.next() % 2 == 0 {
                map[key] = step
                model[key] = step
            } else {
                #expect(map.removeValue(forKey: key) == model.removeValue(forKey: key))
            }
            #expect(map.dictionary == model && map == FewMap(model))
            #expect(map.count == model.count && map.isEmpty == model.isEmpty)
            #expect(Dictionary(uniqueKeysWithValues: map.map { ($0, $1) }) == model)
        }
    }

    @Test("a set of few")
    func fewSet() {
        var set = FewSet<String>()
        for name in ["a", "b", "a"] { set.insert(name) }
        set.remove("b")
        #expect(set.contains("a") && !set.contains("b") && set.count == 1)
    }
}
