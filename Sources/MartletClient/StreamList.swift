import NIOCore

/// The streams of one kind that somebody reads. Confined to the event loop.
final class StreamList<Element: Sendable> {
    private let eventLoop: any EventLoop
    private var streams: [Int: AsyncStream<Element>.Continuation] = [:]
    private var count = 0

    init(eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
    }

    func add(_ stream: AsyncStream<Element>.Continuation) {
        count += 1
        let number = count
        streams[number] = stream
        let (list, eventLoop) = (NIOLoopBound(self, eventLoop: eventLoop), eventLoop)
        stream.onTermination = { _ in
            eventLoop.execute { list.value.streams[number] = nil }
        }
    }

    func yield(_ element: Element) {
        for stream in streams.values { stream.yield(element) }
    }

    func finish() {
        for stream in streams.values { stream.finish() }
        streams = [:]
    }
}
