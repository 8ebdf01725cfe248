import WireProtocol

/// The keys of one file, or of one answer of a JWKS address.
package struct TokenKeys: Sendable {
    package enum Source: Sendable {
        /// PEM blocks, a JSON Web Key or a JWK Set.
        case file
        /// A JWK Set of public keys, perhaps without one that can be used: who asks is told what there is.
        case network
    }

    package static let maximumBytes = 256 * 1024
    /// What is loaded is tried by tokens of strangers, and read on the time of all.
    package static let maximumCount = 100
    static let maximumIDBytes = 256

    package private(set) var keys: [TokenKey] = []
    /// Why keys of a set were left out (RFC 7517 section 5), each with its place, never with a secret.
    package private(set) var ignored: [String] = []

    /// - Throws: when it has another form, or a file holds not one key, with what is wrong: the end of a sentence that begins with the file's name.
    package init(parsing bytes: [UInt8], from source: Source) throws(TokenKeyError) {
        guard bytes.count <= Self.maximumBytes else {
            throw TokenKeyError("has more than \(Self.maximumBytes) bytes")
        }
        if source == .file, PEM.isText(bytes) {
            keys = try PEM.blocks(of: bytes).map { block throws(TokenKeyError) in
                TokenKey(try EVPKey.read(pem: block.text, isPrivate: block.isPrivate), id: nil)
            }
        } else {
            try readJSON(bytes, source)
        }
        guard !keys.isEmpty || source == .network else {
            throw TokenKeyError(
                "holds no key for tokens" + (ignored.isEmpty ? "" : ": " + ignored.joined(separator: "; ")))
        }
        guard keys.count <= Self.maximumCount else { throw TokenKeyError("holds more than \(Self.maximumCount) keys") }
    }

    private mutating func readJSON(_ bytes: [UInt8], _ source: Source) throws(TokenKeyError) {
        let expected = source == .file ? "neither PEM nor a JSON Web Key (Set)" : "no JWK Set"
        guard String(validating: bytes, as: UTF8.self) != nil else { throw TokenKeyError("is \(expected)") }
        var elements: [Range<Int>]?
        let isObject = bytes.withUnsafeBytes { bytes in
            JSONObject.scan(bytes) { name, value, bytes in
                if name == "keys" { elements = Self.elements(value, bytes) }
            }
        }
        guard isObject else { throw TokenKeyError("is \(expected)") }
        guard let elements else {
            guard source == .file else { throw TokenKeyError("is \(expected)") }
            keys = [try Self.key(bytes, 0..<bytes.count, source)]
            return
        }
        guard elements.count <= Self.maximumCount else {
            throw TokenKeyError("holds more than \(Self.maximumCount) keys")
        }
        for (index, range) in elements.enumerated() {
            do throws(TokenKeyError) {
                keys.append(try Self.key(bytes, range, source))
            } catch {
                ignored.append("key \(index + 1) \(error)")
            }
        }
    }

    private static func elements(_ value: JSONValue, _ bytes: UnsafeRawBufferPointer) -> [Range<Int>]? {
        guard value.kind == .array else { return nil }
        var ranges: [Range<Int>] = []
        try? JSONScanner.scanArray(bytes, in: value.range) { ranges.append($0.range) }
        return ranges
    }

    private static func key(
        _ json: [UInt8], _ range: Range<Int>, _ source: Source
    ) throws(TokenKeyError) -> TokenKey {
        let read: Result<TokenKey, TokenKeyError> = json.withUnsafeBytes { bytes in
            Result { () throws(TokenKeyError) in try JWKReader(bytes, in: range).key(from: source) }
        }
        return try read.get()
    }
}

/// PEM text (RFC 7468), taken apart into blocks.
enum PEM {
    struct Block {
        let text: [UInt8]
        let isPrivate: Bool
    }

    static func isText(_ bytes: [UInt8]) -> Bool {
        String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isNewline).contains { $0.hasPrefix(begin) }
    }

    /// What stands between the blocks is ignored, as are parameters of elliptic curves.
    static func blocks(of bytes: [UInt8]) throws(TokenKeyError) -> [Block] {
        var blocks: [Block] = []
        var label: String?
        var lines: [Substring] = []
        for line in String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isNewline) {
            if line.hasPrefix(begin) {
                label = String(line.dropFirst(begin.count).prefix { $0 != "-" })
                lines = []
            }
            guard let current = label else { continue }
            lines.append(line)
            guard line.hasPrefix("-----END \(current)-----") else { continue }
            label = nil
            let text = Array((lines.joined(separator: "\n") + "\n").utf8)
            switch current {
            case "PUBLIC KEY": blocks.append(Block(text: text, isPrivate: false))
            case "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY": blocks.append(Block(text: text, isPrivate: true))
            case "EC PARAMETERS": continue
            case "CERTIFICATE":
                throw TokenKeyError("holds a certificate: take its key out with openssl x509 -pubkey -noout")
            default: throw TokenKeyError("holds a PEM block that is neither PUBLIC KEY nor PRIVATE KEY")
            }
        }
        return blocks
    }

    private static let begin = "-----BEGIN "
}
