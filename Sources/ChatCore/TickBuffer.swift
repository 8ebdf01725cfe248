package import WireProtocol

/// What a room got in one tick: the frames of all as one buffer, and for those who wrote some of them what they get in
/// their place.
///
/// Everybody is sent ``bytes`` as it is. An origin is sent its ``assembly(for:echo:from:)``, in which each answer stands
/// where its own message would (G1); who is slow is sent ``lean(for:echo:from:)``, without what is ephemeral (G6).
package struct TickBuffer: Sendable {
    private struct Piece: Sendable {
        let frame: Range<Int>
        let own: Range<Int>
        let isMessage: Bool
    }

    package private(set) var bytes: [UInt8] = []
    package private(set) var frames = 0
    package private(set) var hasPresence = false
    private var ownBytes: [UInt8] = []
    private var pieces: [SessionID: [Piece]] = [:]
    private var ephemeral: [(frame: Range<Int>, isPresence: Bool)] = []

    package init() {}

    package mutating func append(_ frame: UnsafeRawBufferPointer, kind: FrameKind) {
        let start = bytes.count
        bytes.append(contentsOf: frame)
        frames += 1
        if kind == .presence { hasPresence = true }
        if kind.isEphemeral { ephemeral.append((start..<bytes.count, kind == .presence)) }
    }

    /// - Parameters:
    ///   - own: what `origin` gets instead; may be empty.
    ///   - kind: of a message the origin gets, with echo, `frame` too, behind `own`.
    package mutating func append(
        _ frame: UnsafeRawBufferPointer, kind: FrameKind, origin: SessionID, own: UnsafeRawBufferPointer
    ) {
        let start = bytes.count
        append(frame, kind: kind)
        let ownStart = ownBytes.count
        ownBytes.append(contentsOf: own)
        pieces[origin, default: []]
            .append(
                Piece(
                    frame: start..<bytes.count, own: ownStart..<ownBytes.count, isMessage: kind == .message))
    }

    package func isOrigin(_ id: SessionID) -> Bool { pieces[id] != nil }
    package var hasOrigins: Bool { !pieces.isEmpty }
    package var hasEphemeral: Bool { !ephemeral.isEmpty }

    /// The tick as `origin` sees it; `nil` when it wrote nothing of it.
    ///
    /// - Parameter start: where in ``bytes`` it begins for `origin`; the start of a frame, or the end.
    package func assembly(for origin: SessionID, echo: Bool, from start: Int = 0) -> [UInt8]? {
        guard let pieces = pieces[origin] else { return nil }
        return assemble(pieces, echo: echo, from: start)
    }

    /// The same without the ephemeral frames, for anybody.
    ///
    /// - Parameter withTyping: only without those of presence.
    package func lean(for origin: SessionID, echo: Bool, from start: Int = 0, withTyping: Bool = false) -> [UInt8] {
        let cut = ephemeral.filter { $0.isPresence || !withTyping }.map(\.frame)
        // Own typing stands in both lists.
        var cuts = (pieces[origin] ?? []).filter { piece in !cut.contains(piece.frame) }
        cuts += cut.map { Piece(frame: $0, own: 0..<0, isMessage: false) }
        cuts.sort { $0.frame.lowerBound < $1.frame.lowerBound }
        return assemble(cuts, echo: echo, from: start)
    }

    private func assemble(_ pieces: [Piece], echo: Bool, from start: Int) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(bytes.count - start)
        var offset = start
        for piece in pieces where piece.frame.lowerBound >= start {
            result.append(contentsOf: bytes[offset..<piece.frame.lowerBound])
            result.append(contentsOf: ownBytes[piece.own])
            if echo, piece.isMessage { result.append(contentsOf: bytes[piece.frame]) }
            offset = piece.frame.upperBound
        }
        result.append(contentsOf: bytes[offset...])
        return result
    }

    /// Empties it and keeps its memory, for the next tick of any room.
    package mutating func removeAll() {
        bytes.removeAll(keepingCapacity: true)
        ownBytes.removeAll(keepingCapacity: true)
        pieces.removeAll(keepingCapacity: true)
        ephemeral.removeAll(keepingCapacity: true)
        frames = 0
        hasPresence = false
    }

    /// Of all its buffers together, in bytes.
    package var capacity: Int { bytes.capacity + ownBytes.capacity }
}
