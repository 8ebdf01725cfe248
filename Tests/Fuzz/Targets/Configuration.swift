#if DEBUG || FUZZING
import ChatCore
@testable import RedisClient
import WebSocketTransport
import WireProtocol

/// The first byte says what the rest is: an address of Redis, a network, a pattern of rooms, or behind `j`, `e` and `s`
/// a configuration file, a `.env` and settings.
///
/// 1. What is refused is refused with a sentence that shows no password.
/// 2. What is taken means the same however it is asked.
func fuzzConfiguration(_ input: UnsafeRawBufferPointer) throws(FuzzFinding) {
    let (kind, bytes) = input.splitFirst()
    if kind == UInt8(ascii: "j") { return try checkConfigurationFile(bytes) }
    guard let text = bytes.text else { return }
    switch kind {
    case UInt8(ascii: "e"): try checkDotEnv(text)
    case UInt8(ascii: "s"): try checkSettings(text)
    case UInt8(ascii: "u"): try checkRedisURL(text)
    case UInt8(ascii: "a"):
        guard let block = AddressBlock(text) else { return }
        let address = text.prefix { $0 != "/" }
        try hold("a block holds its own address", IPAddress(address).map(block.contains) ?? false)
        if let address = IPAddress(address) {
            try hold("an address reads as it is written", IPAddress(address.description) == address)
        }
    default:
        guard let pattern = RoomPattern(text), let room = try? RoomName(validating: "general") else { return }
        if text == "*" || text == "general" { try hold("a pattern matches its room", pattern.matches(room)) }
        if let own = try? RoomName(validating: text) { try hold("a name matches itself", pattern.matches(own)) }
    }
}

private func checkRedisURL(_ text: String) throws(FuzzFinding) {
    guard let configuration = try? RedisConfiguration(url: text) else { return }
    // A short password may stand elsewhere in the address.
    guard let password = configuration.password, password.utf8.count > 8 else { return }
    try hold("a description shows no password", !"\(configuration)".contains(password))
    try hold("nor does any other look at it", !String(reflecting: configuration).contains(password))
}
#endif
