import Glibc
import Testing

@testable import martlet

@Suite("The file .env")
struct DotEnvTests {
    private func values(_ text: String) throws -> [String: String] { try DotEnv(parsing: text, name: ".env").values }

    private func refusal(_ text: String) -> String? {
        #expect(throws: Failure.self) { try values(text) }?.sentence
    }

    @Test("lines are KEY=VALUE; comments, empty lines and `export` say nothing; the last of a key counts")
    func lines() throws {
        let text = """
            # Martlet's settings.

            MARTLET_HOST=0.0.0.0
             export MARTLET_PORT = 9000   # the router's
            \t#MARTLET_PORT=1
            A_1=
            MARTLET_HOST=::1\r
            B=a=b#c
            C=# nothing
            """
        #expect(try values(text) == ["MARTLET_HOST": "::1", "MARTLET_PORT": "9000", "A_1": "", "B": "a=b#c", "C": ""])
        #expect(try values("") == [:])
    }

    @Test("a value is what stands there: blanks, $, `, ; and backslashes are no shell's")
    func verbatim() throws {
        for (text, value) in [
            ("10.0.0.0/8, 192.168.0.0/16", "10.0.0.0/8, 192.168.0.0/16"), ("a$b`c`;d\\e", "a$b`c`;d\\e"),
            (#""a b # c" # d"#, "a b # c"), (#"'a"$b\'"#, #"a"$b\"#), (#""a\"b\\c\$d\e""#, #"a"b\c$d\e"#), ("''", ""),
            (#"a"b"#, #"a"b"#),
        ] {
            #expect(try values("K=\(text)") == ["K": value])
        }
    }

    @Test("what is wrong is one sentence with the line and without the value")
    func refusals() {
        #expect(refusal("\nnonsense") == "line 2 of .env is not KEY=VALUE")
        #expect(refusal("1A=b") == "line 1 of .env is not KEY=VALUE")
        #expect(refusal("A B=c") == "line 1 of .env is not KEY=VALUE")
        #expect(refusal("#\n#\nA='secret") == "line 3 of .env has a quote that does not end, or something behind it")
        #expect(refusal(#"A="a"b"#) == "line 1 of .env has a quote that does not end, or something behind it")
        #expect(
            refusal("MARTLET_PROT=1")
                == "line 1 of .env has MARTLET_PROT, which no setting is called; the nearest is MARTLET_PORT")
    }

    @Test("the environment wins, also with an empty value; no file is no error")
    func environment() throws {
        var template = Array("/tmp/martlet-env-XXXXXX".utf8CString)
        let descriptor = mkstemp(&template)
        let path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        defer { unlink(path) }
        Terminal.write("A=file\nB=file\nC=file\n", to: descriptor)
        close(descriptor)
        let given = ["A": "given", "B": "", "D": "given"]
        #expect(
            try DotEnv.adding(to: given, path: path) == ["A": "given", "B": "", "C": "file", "D": "given"])
        #expect(try DotEnv.adding(to: given, path: path + ".not") == given)
        #expect(throws: Failure.self) { try DotEnv.adding(to: given, path: "/tmp") }
    }
}
