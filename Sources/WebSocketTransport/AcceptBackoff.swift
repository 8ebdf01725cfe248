package import NIOCore

/// Out of descriptors or memory, accept(2) fails while the listening socket stays readable: NIO would spin. Waits 100 ms
/// before it tries again, and keeps the listening socket.
package final class AcceptBackoff: ChannelDuplexHandler {
    package typealias InboundIn = any Channel
    package typealias OutboundIn = Never

    private var isWaiting = false
    private var readIsDue = false

    package init() {}

    package func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard error is IOError else { return context.fireErrorCaught(error) }
        guard !isWaiting else { return }
        isWaiting = true
        context.eventLoop.assumeIsolated().scheduleTask(in: .milliseconds(100)) {
            self.isWaiting = false
            if self.readIsDue {
                self.readIsDue = false
                context.read()
            }
        }
    }

    package func read(context: ChannelHandlerContext) {
        if isWaiting {
            readIsDue = true
        } else {
            context.read()
        }
    }
}
