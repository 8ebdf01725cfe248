package import NIOCore

/// How long a tunnel may stand still. Looked at every `sweep`, so it may last that much longer.
package struct TunnelTimes: Sendable {
    /// One direction has ended.
    package var halfClosed: TimeAmount = .seconds(30)
    /// It ends, and one end does not take what it is still to have, or does not end its own side.
    package var ending: TimeAmount = .seconds(5)
    package var sweep: TimeAmount = .seconds(5)

    package init() {}
}
