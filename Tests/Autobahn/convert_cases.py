"""The cases of the Autobahn suite for Python 3, where a payload is bytes and a description text."""

import ast
import io
import re
import tokenize

from convert_text import python3, replaced

# Not in the suite's own list of cases either.
UNLISTED = "case9_9_1.py"


def case(name, text):
    """One file of the suite's `case` folder."""
    text = python3(text)
    text = re.sub(r"^from (case\w*) import", r"from autobahntestsuite.case.\1 import", text, flags=re.M)
    text = text.replace("(object, Case, )", "(Case,)")
    special = {
        "__init__.py": listing, "case.py": base, "case6_x_x.py": utf8_sequences, "case12_x_x.py": compression,
    }
    if name in special:
        return special[name](text)
    if name != "case7_5_1.py":
        text = re.sub(r"(binascii\.b2a_hex\([\w.]+(?:\[[\d:]+\])?\))", r"\1.decode('ascii')", text)
    text = with_bytes(text, is_payload)
    for edited, old, new, count in PAYLOADS_IN_PROSE:
        if edited == name:
            text = replaced(text, old, new, count)
    check(name, text)
    return text


# Where a payload is formatted into a description, divided, or indexed for one octet.
PAYLOADS_IN_PROSE = [
    *((f"case6_2_{n}.py", "% (PAYLOAD, ", "% (PAYLOAD.decode('utf-8'), ", 1) for n in (1, 3, 4)),
    ("case6_2_2.py", "% (PAYLOAD1, ", "% (PAYLOAD1.decode('utf-8'), ", 1),
    ("case6_2_2.py", ", PAYLOAD2, ", ", PAYLOAD2.decode('utf-8'), ", 1),
    ("case6_4_2.py", "PAYLOAD[12])", "PAYLOAD[12:13])", 2),
    ("case6_4_4.py", "PAYLOAD[12])", "PAYLOAD[12:13])", 2),
    ("case10_1_1.py", "len(self.payload) / self", "len(self.payload) // self", 1),
]


def listing(text):
    text = replaced(text, "from autobahntestsuite.case.case9_9_1 import *\n", "")
    return replaced(text, "\nCases = []\n", "\nfrom autobahntestsuite.case.case import Case\n\nCases = []\n")


def base(text):
    """What was expected equals what came if the values do, which pickles of them were to tell. Bytes never equal text,
    so a payload that is text here would be a fault of the conversion, and is said."""
    text = replaced(text, "import pickle\n", "")
    return replaced(text, "      return pickle.dumps(obj1) == pickle.dumps(obj2)\n", """\
      for o in obj1, obj2:
         for t in o:
            if t[0] != "timeout" and type(t[1]) is not bytes:
               raise TypeError("payload is not bytes: %r" % (t,))
            if t[0] == "message" and type(t[2]) is not bool:
               raise TypeError("binary flag is not a bool: %r" % (t,))
      return obj1 == obj2
""")


def compression(text):
    text = replaced(text, "import copy, os, pkg_resources, hashlib, binascii\n", """\
import copy, os, hashlib, binascii

def testdata(name):
   return os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "testdata", name)
""")
    text = replaced(text, 'pkg_resources.resource_filename("autobahntestsuite", ', "testdata(", 3)
    for name in "self.TESTDATA['file']", "WS_COMPRESSION_TESTDATA[td]['file']", "TEST_DATA['file']":
        text = replaced(text, f'"testdata/%s" % {name})', f"{name})")
    return replaced(text, "      msg = ''\n", "      msg = b'' if self.TESTDATA['binary'] else ''\n")


def utf8_sequences(text):
    """All strings of the sequences are payloads, but for their titles. Tests of the helpers themselves are left out."""
    text = text[: text.index("def test_utf8(validator)")] + text[
        text.index("Case6_X_X = []") : text.rindex("import binascii\nimport array")]
    begin, end = text.index("def createUtf8TestSequences"), text.index("def createValidUtf8TestSequences")
    sequences = with_bytes(
        text[begin:end],
        lambda tokens, i: not tokens[i].string.startswith('"""')
        and [t.string for t in tokens[i - 3 : i]] != ["vs", "=", "["])
    sequences = replaced(sequences, "chr(i)", "bytes([i])", 2)
    sequences = replaced(sequences, "chr(0x20)", "bytes([0x20])")
    text = text[:begin] + sequences + text[end:]
    return replaced(text, "(desc, binascii.b2a_hex(p[1]))", "(desc, binascii.b2a_hex(p[1]).decode('ascii'))")


def with_bytes(text, is_bytes):
    """Makes those string literals bytes of which `is_bytes(tokens, index)` says so."""
    layout = (tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT)
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type not in layout]
    lines = text.splitlines(True)
    for i in reversed(range(len(tokens))):
        token = tokens[i]
        if token.type != tokenize.STRING or token.string[0] not in "\"'" or not is_bytes(tokens, i):
            continue
        (row, begin), (last, end) = token.start, token.end
        if row != last:
            raise SystemExit(f"convert: a payload over several lines: {token.line}")
        literal = token.string
        literal = "b" + literal if literal.isascii() else literal + ".encode('utf-8')"
        lines[row - 1] = lines[row - 1][:begin] + literal + lines[row - 1][end:]
    return "".join(lines)


PAYLOAD_NAME = re.compile(r"payload\d?|ping_payload|fragments|pings|reasonutf8", re.I)


def is_payload(tokens, i):
    """Whether the literal at `i` of a case's tokens is assigned to a payload, joins fragments, or is expected to come."""
    before = [t.string for t in tokens[max(0, i - 4) : i]]
    if before[-1] == "=":
        return bool(PAYLOAD_NAME.fullmatch(before[-2]))
    if [t.string for t in tokens[i + 1 : i + 3]] == [".", "join"]:
        return True
    if before[-3:] in (["(", '"message"', ","], ["(", '"pong"', ","]):
        return True
    while tokens[i].type == tokenize.STRING and tokens[i - 1].string in ",[":
        if tokens[i - 1].string == "[":
            return tokens[i - 2].string == "=" and bool(PAYLOAD_NAME.fullmatch(tokens[i - 3].string))
        i -= 2
    return False


# Names in what a case expects, and reasons of Close frames, which the suite takes as text.
KEYS = {"message", "pong", "timeout", "A", "B", "closedByMe", "closeCode", "requireClean", "closedByWrongEndpointIsFatal"}
REASONS = {"case7_3_4.py": {"Hello World!", "*"}, "case7_3_5.py": {"Hello World!", "*"}, "case7_5_1.py": {"?"}}
PROSE = {"DESCRIPTION", "EXPECTATION", "result", "resultClose", "localCloseReason", "cc", "mt", "desc", "exp"}


def check(name, text):
    """No literal of a converted case is text that is neither prose nor a key: it would be a payload that was missed."""
    tree = ast.parse(text)
    prose = set()
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else []
        function = node.func if isinstance(node, ast.Call) else None
        if (
            {getattr(t, "attr", getattr(t, "id", None)) for t in targets} & PROSE
            or getattr(function, "id", "") in ("type", "Exception")
            or getattr(function, "attr", "") in ("encode", "decode")
        ):
            prose.update(map(id, ast.walk(node)))
    left = {
        node.value for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
    } - KEYS - REASONS.get(name, set())
    if left:
        raise SystemExit(f"convert: {name} has text that may be a payload: {sorted(left)}")
