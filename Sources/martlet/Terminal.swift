import Glibc

/// Writes to a file descriptor and knows whether a person sits behind it.
enum Terminal {
    /// Writes all of the text, with as few calls as the descriptor takes. A reader that went away (`| head`) ends the
    /// process without a word, as SIGPIPE would have.
    static func write(_ text: String, to descriptor: Int32) {
        var text = text
        text.withUTF8 { bytes in
            var rest = UnsafeRawBufferPointer(bytes)
            while let base = rest.baseAddress, !rest.isEmpty {
                let count = Glibc.write(descriptor, base, rest.count)
                if count >= 0 {
                    rest = UnsafeRawBufferPointer(rebasing: rest[count...])
                } else if errno == EPIPE, descriptor == STDOUT_FILENO {
                    exit(0)
                } else if errno == EAGAIN {
                    var poller = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                    _ = poll(&poller, 1, 1000)
                } else if errno != EINTR {
                    return
                }
            }
        }
    }

    /// Colour is for terminals, and for nobody who set NO_COLOR (https://no-color.org: any non-empty value) or
    /// TERM=dumb.
    static func wantsColour(_ descriptor: Int32, environment: [String: String]) -> Bool {
        isatty(descriptor) == 1 && (environment["NO_COLOR"] ?? "").isEmpty && environment["TERM"] != "dumb"
    }

    /// Columns of the terminal behind the descriptor; nil when it is none.
    static func columns(_ descriptor: Int32) -> Int? { size(descriptor).map { Int($0.ws_col) } }

    static func rows(_ descriptor: Int32) -> Int? { size(descriptor).map { Int($0.ws_row) } }

    private static func size(_ descriptor: Int32) -> winsize? {
        var size = winsize()
        guard ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0 else { return nil }
        return size
    }
}
