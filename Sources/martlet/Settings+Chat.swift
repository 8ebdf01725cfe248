/// What `martlet chat` is told of who chats.
extension Settings {
    static let chatRows: [SettingRow] = [
        .optionalText(
            "MARTLET_CHAT_TOKEN", flag: nil, \.chatToken, anyToken, [.chat],
            "The token that says who chats from the terminal.", unset: "the name that --user says", isSecret: true),
        .file("MARTLET_CHAT_TOKEN_FILE", flag: "--token-file", of: "MARTLET_CHAT_TOKEN", [.chat]),
    ]

    private static let anyToken = SettingSyntax(allowed: "text of 1 to 65536 bytes") {
        (1...65536).contains($0.utf8.count)
    }
}
