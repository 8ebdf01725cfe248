/// What names requests, and cookies of clients without another name.
enum Hexadecimal {
    /// 32 digits.
    static func text(_ words: (UInt64, UInt64)) -> String {
        [words.0, words.1].map { word in
            let digits = String(word, radix: 16)
            return String(repeating: "0", count: 16 - digits.utf8.count) + digits
        }.joined()
    }
}
