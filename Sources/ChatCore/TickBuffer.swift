/// What a room got in one tick: the frames of all as one buffer, and for those who wrote some of them what they get in
/// their place.
///
/// Everybody is sent ``bytes`` as it is; an origin is sent its ``assembly(for:echo:)``, in which each answer stands where
/// its own message would (G1).
package struct TickBuffer<Origin: Hashable & Sendable>: Sendable {
    private struct Piece: Sendable {
        let frame: Range<Int>
        let own: Range<Int>
        let isMessage: Bool
    }

    package private(set) var bytes: [UInt8] = []
    package private(set) var frames = 0
    private var ownBytes: [UInt8] = []
    private var pieces: [Origin: [Piece]] = [:]

    package init() {}

    package mutating func append(_ frame: some Collection<UInt8>) {
        bytes.append(contentsOf: frame)
        frames += 1
    }

    /// - Parameters:
    ///   - own: what `origin` gets instead; may be empty.
    ///   - isMessage: with echo the origin gets `frame` too, behind `own`.
    package mutating func append(
        _ frame: some Collection<UInt8>, origin: Origin, own: some Collection<UInt8>, isMessage: Bool
    ) {
        let start = bytes.count
        append(frame)
        let ownStart = ownBytes.count
        ownBytes.append(contentsOf: own)
        pieces[origin, default: []]
            .append(Piece(frame: start..<bytes.count, own: ownStart..<ownBytes.count, isMessage: isMessage))
    }

    package var hasOrigins: Bool { !pieces.isEmpty }

    /// The tick as `origin` sees it; `nil` when it wrote nothing of it.
    package func assembly(for origin: Origin, echo: Bool) -> [UInt8]? {
        guard let pieces = pieces[origin] else { return nil }
        var result: [UInt8] = []
        result.reserveCapacity(bytes.count)
        var offset = 0
        for piece in pieces {
            result.append(contentsOf: bytes[offset..<piece.frame.lowerBound])
            result.append(contentsOf: ownBytes[piece.own])
            if echo, piece.isMessage { result.append(contentsOf: bytes[piece.frame]) }
            offset = piece.frame.upperBound
        }
        result.append(contentsOf: bytes[offset...])
        return result
    }

    /// Empties it, and keeps the memory of an ordinary tick for the next one.
    package mutating func removeAll() {
        bytes.removeAll(keepingCapacity: bytes.count < 1 << 16)
        ownBytes.removeAll(keepingCapacity: ownBytes.count < 1 << 16)
        pieces.removeAll(keepingCapacity: true)
        frames = 0
    }
}
