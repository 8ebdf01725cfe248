/// Replaces words in a stream of bytes, also where a word comes in two pieces: what may become one waits for the rest.
struct Rewriter {
    private let words: [(from: [UInt8], to: [UInt8])]
    private var waiting: [UInt8] = []

    /// - Parameter words: none the beginning of what a message of the protocol ends with, or that message would wait.
    init(_ words: [(from: String, to: String)]) {
        self.words = words.map { (Array($0.from.utf8), Array($0.to.utf8)) }
    }

    var isIdle: Bool { words.isEmpty }

    mutating func rewrite(_ bytes: some Sequence<UInt8>) -> [UInt8] {
        var input = waiting
        input.append(contentsOf: bytes)
        waiting = []
        var output: [UInt8] = []
        output.reserveCapacity(input.count)
        var index = 0
        while index < input.count {
            let rest = input[index...]
            if let word = words.first(where: { rest.starts(with: $0.from) }) {
                output += word.to
                index += word.from.count
            } else if words.contains(where: { $0.from.starts(with: rest) }) {
                waiting = Array(rest)
                return output
            } else {
                output.append(input[index])
                index += 1
            }
        }
        return output
    }
}
