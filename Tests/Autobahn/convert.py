"""`convert.py TARGET`: a copy, for Python 3, of the Autobahn test suite that is installed beside this interpreter.

The suite is published as Python 2. Only what its fuzzing client needs is copied. An edit changes syntax and text against
bytes, never what a case sends or expects; it says how often it must apply, and whatever is not as expected ends the
conversion: the suite is pinned, so the result is always the same.
"""

import shutil
import sys
import sysconfig
from pathlib import Path

import convert_cases
from convert_text import python3, replaced

SITE = Path(sysconfig.get_path("purelib"))


def driver(text):
    """fuzzing.py: the protocol that runs one case after the other, without the server's half of it."""
    text = python3(text)
    text = replaced(text, ", textwrap, pkg_resources", ", textwrap")
    text = replaced(text, "from twisted.python import log, usage\n", "from twisted.python import log\n")
    text = replaced(text, "from twisted.internet import reactor, ssl\n", "from twisted.internet import reactor\n")
    text = replaced(text, "from twisted.web.server import Site\nfrom twisted.web.static import File\n", "")
    for module in "case", "caseset", "report":
        text = replaced(text, f"\nfrom {module} import", f"\nfrom autobahntestsuite.{module} import")
    # TLS would need more packages, and adds nothing to what is tested.
    text = replaced(text, "self.contextFactory = ssl.ClientContextFactory()", "self.contextFactory = None")
    text = replaced(text, "self.contextFactory = ssl.optionsForClientTLS(hostname)", "raise Exception('wss')")
    # What was read and written is bytes, what the reports say of it text.
    hexadecimal = "binascii.b2a_hex({})"
    for argument, count in ("data[:maxlen]", 1), ("frameHeader.mask", 2):
        call = hexadecimal.format(argument)
        text = replaced(text, call, call + ".decode('ascii')", count)
    text = replaced(text, "dd = binascii.b2a_hex(data)\n", "dd = binascii.b2a_hex(data).decode('ascii')\n")
    text = replaced(text, "dd = data[:maxlen] + ellipses", "dd = data[:maxlen] + ellipses.encode('ascii')")
    text = replaced(text, "p = ''.join(payload)", "p = b''.join(payload)")
    text = replaced(text, "mmask = binascii.b2a_hex(t[6])", "mmask = t[6]")
    text = replaced(text, "ll.encode('utf8'))", "ll)")
    text = replaced(text, '% (c[0], case[c[0]], c[1])).encode("utf-8"))', "% (c[0], case[c[0]], c[1])))")
    for data in "request", "response":
        text = replaced(
            text, f"self.http_{data}_data if", f"self.http_{data}_data.decode('iso-8859-1') if")
    text = replaced(text, "report_filename), 'w')", "report_filename), 'w', encoding = 'utf-8')", 4)
    text = replaced(
        text, "separators = (',', ': '))",
        "separators = (',', ': '), default = lambda o: o.decode('utf8', 'backslashreplace'))", 2)
    return text[: text.index("def startServer(")].replace(
        "['startClient', 'startServer', 'WS_COMPRESSION_TESTDATA']", "['startClient']")


def report(text):
    """report.py: the style sheets of the reports; the rest of it is of another tool."""
    return text[: text.index("REPORT_DIR_PERMISSIONS")].replace("import jinja2\n", "")


def case_set(text):
    return replaced(python3(text), r"replace('.', '\.')", r"replace('.', r'\.')", 3)


def keep_division_whole():
    """In autobahn itself, the one division that is not run by Python 3 as it was meant."""
    file = SITE / "autobahn/websocket/protocol.py"
    text = file.read_text(encoding="utf-8")
    fixed = "range(payload_len // len(payload))"
    if fixed not in text:
        text = replaced(text, "range(payload_len / len(payload))", fixed)
        file.write_text(text, encoding="utf-8")


def main(target):
    source = SITE / "autobahntestsuite"
    suite = Path(target) / "autobahntestsuite"
    shutil.rmtree(target, ignore_errors=True)
    (suite / "case").mkdir(parents=True)
    shutil.copytree(source / "testdata", suite / "testdata")
    modules = {
        "fuzzing.py": driver, "caseset.py": case_set, "report.py": report, "_version.py": lambda text: text,
        "__init__.py": lambda _: "from autobahntestsuite._version import __version__\nversion = __version__\n",
    }
    cases = {
        f"case/{file.name}": lambda text, name=file.name: convert_cases.case(name, text)
        for file in sorted((source / "case").glob("*.py")) if file.name != convert_cases.UNLISTED
    }
    for name, conversion in {**modules, **cases}.items():
        text = conversion((source / name).read_text(encoding="utf-8"))
        compile(text, name, "exec")
        (suite / name).write_text(text, encoding="utf-8")
    keep_division_whole()


if __name__ == "__main__":
    main(sys.argv[1])
