import CLinux
import Glibc

/// Connections on their way from a router to a node: messages that both may receive, and each of which one of them gets.
///
/// Both processes have the receiving end of a pair of sockets (unix(7), SOCK_SEQPACKET), and the kernel gives a message to one
/// recv(2) alone. So to receive one is to claim its connection: the node's are those that it received, the router's those that
/// it gets back, and there are no others.
///
/// A message is a number (8 bytes, as the machine writes them), the head of a request with all that was read behind it, and one
/// descriptor.
struct HandoverQueue {
    static let mostMessageBytes = numberBytes + HandoverSocket.mostBytes
    private static let numberBytes = MemoryLayout<UInt64>.size

    private let sending: CInt
    let receiving: CInt

    /// nil where the process has no descriptors left.
    init?() {
        var ends: [CInt] = [-1, -1]
        let type = Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        guard socketpair(AF_UNIX, type, 0, &ends) == 0 else { return nil }
        (sending, receiving) = (ends[0], ends[1])
    }

    /// - Returns: false where there is no room now, in it or among the descriptors that are under way (unix(7)).
    func put(_ connection: CInt, saying bytes: some Collection<UInt8>, number: UInt64) -> Bool {
        var message = withUnsafeBytes(of: number) { Array($0) }
        message.append(contentsOf: bytes)
        return send_with_descriptor(sending, message, message.count, connection) == message.count
    }

    /// What a message says after its number.
    static func content(_ message: ArraySlice<UInt8>) -> [UInt8] { Array(message.dropFirst(numberBytes)) }

    /// Of all messages that the node has not received; the kernel closes the descriptors that came along.
    func takeBack() -> Set<UInt64> {
        var (numbers, number) = (Set<UInt64>(), UInt64(0))
        while recv(receiving, &number, Self.numberBytes, Int32(MSG_DONTWAIT)) == Self.numberBytes {
            numbers.insert(number)
        }
        return numbers
    }

    /// The node finds the end behind what it has not received.
    func close() {
        Glibc.close(sending)
        Glibc.close(receiving)
    }
}
