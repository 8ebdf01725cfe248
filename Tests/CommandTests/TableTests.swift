import Testing

@testable import martlet

@Suite("Tables for people")
struct TableTests {
    private let plain = Style(colour: false)

    private func table(_ rows: [[Table.Cell]]) -> Table {
        Table(
            columns: [.init(title: "user", isFlexible: true), .init(title: "n", isNumber: true), .init(title: "node")],
            rows: rows)
    }

    @Test("a screen shows what it has room for and says how many lines are left out, also with one row")
    func screen() {
        let lines = ["a", "b", "c", "d"]
        #expect(Screen.fitting(lines, rows: 5) == lines)
        #expect(Screen.fitting(lines, rows: 4) == ["a", "b", "… 2 more"])
        for rows in 0...2 { #expect(Screen.fitting(lines, rows: rows) == ["… 4 more"]) }
        #expect(Screen.fitting([], rows: 1) == [])
    }

    @Test("columns are aligned, numbers to the right, and no line ends with spaces")
    func alignment() {
        let lines = table([["alice", Table.Cell(5), "a.1"], ["bo", Table.Cell(1234), ""]])
            .lines(width: nil, style: plain)
        #expect(lines == ["USER      N  NODE", "alice     5  a.1", "bo     1234"])
    }

    @Test("wide characters take two columns, joining marks none")
    func width() {
        #expect(DisplayWidth.of("日本") == 4)
        #expect(DisplayWidth.of("👩‍👩‍👧") == 2)
        #expect(DisplayWidth.of("e\u{301}") == 1)
        #expect(DisplayWidth.of("☺") == 1)
        #expect(DisplayWidth.cut("日本語", to: 5) == "日本…")
        #expect(DisplayWidth.cut("日本語", to: 4) == "日…")
        #expect(DisplayWidth.cut("abc", to: 3) == "abc")
    }

    @Test("a column that may be cut is cut to the terminal's width; without a terminal nothing is")
    func cutting() {
        let row: [Table.Cell] = [Table.Cell(String(repeating: "x", count: 50)), Table.Cell(1), "node-a.1"]
        #expect(table([row]).lines(width: 30, style: plain)[1] == String(repeating: "x", count: 16) + "…  1  node-a.1")
        #expect(table([row]).lines(width: nil, style: plain)[1].count == 50 + 2 + 1 + 2 + 8)
        #expect(table([row]).lines(width: 3, style: plain)[1] == "xxxxxxx…  1  node-a.1")
    }

    @Test("nothing in a cell reaches the terminal as a control")
    func controls() {
        let lines = table([["a\u{1B}[2J\nb\u{202E}", Table.Cell(1), ""]]).lines(width: nil, style: plain)
        #expect(lines.count == 2)
        #expect(lines[1].hasPrefix(#"a\u{1b}[2J\nb\u{202e}"#))
    }

    @Test("colour surrounds the text and not the padding")
    func colour() {
        let lines = table([[Table.Cell("x", .green), Table.Cell(1), ""]]).lines(width: nil, style: Style(colour: true))
        #expect(lines[1] == "\u{1B}[32mx\u{1B}[0m     1")
    }

    @Test("a message line shows text and data, and survives what is no JSON")
    func message() {
        let members = Array(#""from":"bob","text":"hi\n\u001b[1m","data":{"a":1}"#.utf8)
        #expect(
            MessageLine(seq: 7, ts: 1_790_000_000_123, members: members).text(seqWidth: 3, style: plain)
                == #"  7  2026-09-21 14:13:20Z  bob: hi\n\u{1b}[1m {"a":1}"#)
        #expect(
            MessageLine(seq: 7, ts: 0, members: Array("nonsense".utf8)).text(seqWidth: 0, style: plain)
                == "7  1970-01-01 00:00:00Z  ?: ")
    }

    @Test("amounts are short")
    func amounts() {
        #expect(Amounts.age(milliseconds: 59_999) == "59s")
        #expect(Amounts.age(milliseconds: 185_000) == "3m 5s")
        #expect(Amounts.age(milliseconds: 7_500_000) == "2h 5m")
        #expect(Amounts.age(milliseconds: 273_600_000) == "3d 4h")
        #expect(Amounts.age(milliseconds: -5) == "0s")
        #expect(Amounts.seconds(milliseconds: -340) == "-0.3s")
        #expect(Amounts.seconds(milliseconds: 9870) == "9.8s")
        #expect(Amounts.bytes(1023) == "1023 B")
        #expect(Amounts.bytes(1_572_864) == "1.5 MiB")
    }
}
