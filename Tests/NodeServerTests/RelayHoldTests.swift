import ChatCore
import NIOCore
import Testing

@testable import NodeServer

@Suite("What waits behind a message that the replicas may lack")
struct RelayHoldTests {
    private func hold(_ count: Int, bytes: Int = 10) -> RelayHold {
        var hold = RelayHold()
        for seq in 1...Int64(count) {
            hold.add(
                .init(
                    epoch: "e", seq: seq, tag: "\(seq)", previousTag: "\(seq - 1)",
                    element: .init(text: ByteBuffer(repeating: 120, count: bytes), origin: nil, id: "", ts: 0)))
        }
        return hold
    }

    @Test("At most 1,024 messages, and no more behind 256 KiB: the log has the rest", arguments: [10, 1000, 65536])
    func bounds(bytes: Int) {
        let most = min(1024, (256 << 10 - 1) / bytes + 1)
        #expect(hold(most, bytes: bytes).messages.count == most)
        #expect(!hold(most, bytes: bytes).mustVerify)
        let more = hold(most + 5, bytes: bytes)
        #expect(more.messages.map(\.seq) == Array(1...Int64(most)))
        #expect(more.mustVerify)
    }

    @Test("What is before the first undecided is delivered in order, the rest waits, and the log is read behind all")
    func release() {
        var first = hold(5)
        first.mustVerify = true
        var delivered: [Int64] = []
        let rest = first.release(isUndecided: { $0 == "3" }, deliver: { delivered.append($0.seq) })
        #expect(delivered == [1, 2])
        #expect(rest?.messages.map(\.seq) == [3, 4, 5])
        #expect(rest?.mustVerify == true)
        #expect(rest?.release(isUndecided: { _ in false }, deliver: { delivered.append($0.seq) }) == nil)
        #expect(delivered == [1, 2, 3, 4, 5])
    }
}
