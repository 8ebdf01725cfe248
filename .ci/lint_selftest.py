"""Proves that each rule can fail: a small good tree passes all of them, and each change below fails exactly its rule."""

import tempfile
from pathlib import Path

import client
import generated
import lint_rules
import protobuf
from lint_tree import Tree

GUARANTEES = "".join(
    generated.begin(f"tests of G{n}") + "- `Tests/AffinityTests/Hash.swift`: A key keeps its node\n" + generated.END
    for n in range(1, 8)
)
THREATS = (
    "### T1 Bad keys\n\n" + generated.begin("tests of T1") + "- `Tests/AffinityTests/Keys.swift`: A bad key is no key\n"
    + generated.END
)
ENV_EXAMPLE = "# Settings.\n\n# The port. Must be a number.\n#MARTLET_PORT=8081\n"
OPERATIONS = "# Operations\n\n" + generated.begin("settings") + generated.settings_table(ENV_EXAMPLE) + generated.END
GOOD = {
    ".swift-format": '{"version": 1, "lineLength": 120, "indentation": {"spaces": 4}}\n',
    "Package.swift": '// swift-tools-version: 6.2\nimport PackageDescription\n\nlet package = Package(\n    name: "x",\n'
    '    targets: [\n        .target(name: "ChatCore", dependencies: ["WireProtocol"])\n    ]\n)\n',
    "Sources/ChatCore/Room.swift": "import WireProtocol\n\nstruct Room {}\n",
    "Sources/WireProtocol/Name.swift": "import Glibc\n\nstruct Name {}\n",
    "Sources/ClusterState/Scripts/join.lua": "-- KEYS 1 a\n-- ARGV 1 b\n-- RETURNS c\n-- ATOMICITY d\nreturn 1\n",
    client.SOURCE: "let long = 1;\n",
    client.SERVED: "let a=1;\n" + client.line("let long = 1;\n", "let a=1;\n"),
    protobuf.SOURCE: "message A {}\n",
    protobuf.CODE: "struct A {}\n" + client.line("message A {}\n", "struct A {}\n"),
    "Sources/martlet/Settings.swift": 'let key = "MARTLET_PORT"\n',
    "Tests/AffinityTests/Hash.swift": 'import Testing\n\n@Test("G1, G2, G3, G4, G5, G6 and G7: a key keeps its node") func keeps() {}\n',
    "Tests/AffinityTests/Keys.swift": 'import Testing\n\n@Test("T1: a bad key is no key") func refuses() {}\n',
    "docs/threat-model.md": THREATS,
    "Makefile": "PACKAGES := libssl-dev\ntest: ## runs the tests\n\ttrue\n",
    "docker/Dockerfile": "FROM a AS build\nRUN apt-get install -y libssl-dev\nCOPY Sources Sources\n"
    "FROM b\nRUN apt-get install -y libssl3 ca-certificates\nCOPY --from=build /x /x\n",
    "docker/compose.yaml": "services:\n  node:\n    build:\n      dockerfile: docker/Dockerfile\n",
    "docs/guarantees.md": GUARANTEES,
    ".env.example": ENV_EXAMPLE,
    "docs/operations.md": OPERATIONS,
    "README.md": "# X\n\n## Two words\n\n[there](docs/operations.md#operations), [here](#two-words), `Sources/ChatCore`,"
    " `make test`, MARTLET_PORT\n",
    "start.sh": "#!/bin/bash\nif true; then echo; fi\n",
}
# rule, what it is about, file, new content (None: added to what stands there as a line)
BAD = [
    ("format", "bad indentation", "Sources/ChatCore/Room.swift", "struct Room {\n  var a = 1\n}\n"),
    ("format", "a long line", "Sources/ChatCore/Room.swift", 'let a = ["' + "x" * 130 + '"]\n'),
    ("imports", "an arrow that goes up", "Sources/WireProtocol/Name.swift", "import ChatCore\n"),
    ("imports", "an arrow with an access level", "Sources/WireProtocol/Name.swift", "package import NIOCore\n"),
    ("imports", "one declaration of a module", "Sources/ChatCore/Room.swift", "import struct NIOCore.ByteBuffer\n"),
    ("imports", "an unknown target", "Sources/Helpers/Name.swift", "struct Name {}\n"),
    (
        "imports", "a dependency in the manifest", "Package.swift",
        GOOD["Package.swift"].replace('["WireProtocol"]', '["NodeServer"]'),
    ),
    ("foundation", "Foundation", "Sources/ChatCore/Room.swift", "import Foundation\n"),
    ("foundation", "Foundation, dressed up", "Sources/ChatCore/Room.swift", "@preconcurrency package import Foundation\n"),
    ("foundation", "FoundationEssentials without a reason", "Sources/ChatCore/Room.swift", "import FoundationEssentials\n"),
    ("docs", "a dead link", "README.md", "[x](docs/nowhere.md)\n"),
    ("docs", "a dead anchor", "README.md", "[x](docs/operations.md#nowhere)\n"),
    ("docs", "a dead image", "README.md", '<img alt="x" src="docs/x.png">\n'),
    ("docs", "a path that is gone", "README.md", "`Sources/Nowhere/X.swift`\n"),
    ("guarantees", "a guarantee without a place", "docs/guarantees.md", GUARANTEES.partition("<!-- tests of G7")[0]),
    ("threats", "a threat without a test", "docs/threat-model.md", THREATS + "### T2 More\n" + generated.begin("tests of T2") + generated.END),
    ("threats", "a threat without a place", "docs/threat-model.md", THREATS.partition("<!--")[0]),
    (
        "threats", "a number of no threat", "Tests/AffinityTests/Keys.swift",
        GOOD["Tests/AffinityTests/Keys.swift"] + '\n@Test("T9: more") func more() {}\n',
    ),
    (
        "generated", "a test that was renamed", "docs/guarantees.md",
        GUARANTEES.replace("A key keeps its node", "A key loses its node", 1),
    ),
    ("settings", "an unknown key in a page", "README.md", "MARTLET_PROT\n"),
    ("settings", "an unknown key in compose", "docker/compose.yaml", "    MARTLET_PROT: 1\n"),
    ("settings", "a key without documentation", "Sources/martlet/Settings.swift", 'let keys = ["MARTLET_PORT", "MARTLET_HOST"]\n'),
    ("generated", "a table of settings that is old", ".env.example", ENV_EXAMPLE.replace("8081", "8082")),
    ("metrics", "one that no page names", "Sources/ChatCore/Room.swift", 'let a = text.gauge("martlet_rooms", 1)\n'),
    ("metrics", "one that is gone", "docs/operations.md", OPERATIONS + "\n| `martlet_rooms` | gauge | Rooms. |\n"),
    ("docker", "a COPY of nothing", "docker/Dockerfile", GOOD["docker/Dockerfile"].replace("Sources Sources", "Nowhere x")),
    ("docker", "another apt package to build", "docker/Dockerfile", GOOD["docker/Dockerfile"].replace("libssl-dev", "libfoo-dev")),
    ("docker", "another apt package to run", "docker/Dockerfile", GOOD["docker/Dockerfile"].replace("libssl3", "curl")),
    ("docker", "another Dockerfile", "docker/compose.yaml", "services:\n  a:\n    build:\n      dockerfile: docker/Other\n"),
    ("shell", "a script that does not parse", "start.sh", "#!/bin/bash\nif true; then\n"),
    ("tracked", "Package.resolved", "Package.resolved", "{}\n"),
    ("tracked", "a build folder", ".build-x/a", "\n"),
    ("tracked", "a machine's path", "start.sh", "#!/bin/bash\ncd /" + "work/tree\n"),
    ("lua", "a script without its head", "Sources/ClusterState/Scripts/join.lua", "-- KEYS a\n-- ARGV b\nreturn 1\n"),
    ("length", "a long file", "Sources/ClusterState/Scripts/join.lua", GOOD["Sources/ClusterState/Scripts/join.lua"] + "--\n" * 500),
    ("client", "a client of another source", client.SOURCE, "let long = 2;\n"),
    ("client", "a client changed by hand", client.SERVED, "let b=1;\n" + client.line("let long = 1;\n", "let a=1;\n")),
    ("protobuf", "code of other messages", protobuf.SOURCE, "message B {}\n"),
    (
        "protobuf", "code changed by hand", protobuf.CODE,
        "struct B {}\n" + client.line("message A {}\n", "struct A {}\n"),
    ),
    (
        "client", "a client that is too large", client.SERVED,
        "let a=1;" * 2000 + "\n" + client.line("let long = 1;\n", "let a=1;" * 2000 + "\n"),
    ),
    ("make", "a target without help", "Makefile", GOOD["Makefile"] + "down:\n\ttrue\n"),
    ("make", "a target that a page names", "README.md", "`make tea`\n"),
]


def failing(folder, files):
    """The names of the rules that fail on these files, with their problems."""
    for name, text in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    tree = Tree(folder)
    found = {name: rule(tree) for name, rule in lint_rules.RULES.items()}
    return {name: problems for name, problems in found.items() if problems}


def summary(found):
    return "; ".join(f"{name} ({problems[0]})" for name, problems in found.items()) or "none"


def run():
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        found = failing(folder, GOOD)
        if found:
            wrong.append(f"the good tree fails: {summary(found)}")
    for rule, about, file, text in BAD:
        if file.endswith(".md") and text.count("\n") == 1:
            text = GOOD[file] + text
        with tempfile.TemporaryDirectory() as folder:
            found = failing(folder, GOOD | {file: text})
        if set(found) != {rule}:
            wrong.append(f"{rule}, {about}: expected this rule alone to fail, but these did: {summary(found)}")
    untested = set(lint_rules.RULES) - {rule for rule, *_ in BAD}
    wrong += [f"rule {rule} has no bad tree" for rule in sorted(untested)]
    for line in wrong:
        print(f"lint self-test: {line}")
    if not wrong:
        print(f"lint self-test: ok ({len(BAD)} bad trees, {len(lint_rules.RULES)} rules)")
    return 1 if wrong else 0
