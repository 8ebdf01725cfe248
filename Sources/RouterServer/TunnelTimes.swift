package import NIOCore

/// How long a tunnel may stand still. Looked at every `sweep`, so it may last that much longer.
package struct TunnelTimes: Sendable {
    /// Nothing moves either way; above the time after which a node pings who is silent. nil: for ever.
    package var idle: TimeAmount?
    /// One direction has ended.
    package var halfClosed: TimeAmount = .seconds(30)
    /// One end is lost, and the other does not take what it is still to have.
    package var ending: TimeAmount = .seconds(5)
    package var sweep: TimeAmount = .seconds(5)

    package init() {}
}
