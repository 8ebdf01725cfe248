"""The rules of `make lint`. Each takes a Tree and returns its problems."""

import re
import shutil
import subprocess
from pathlib import Path

import client
import generated
import protobuf

# The architecture: what each target may import beside Swift, Glibc and Synchronization. Arrows only go down.
NIO = "NIOCore NIOPosix"
HTTP = "NIOCore NIOPosix NIOHTTP1"
ALLOWED = {
    "martlet": f"* ArgumentParser Logging {NIO}",
    "NodeServer": "WebSocketTransport CLinux ChatCore ClusterState RedisClient WireProtocol ProtobufCodec TLSClient TokenAuth "
    f"Telemetry WebAssets Logging {HTTP}",
    "RouterServer": "WebSocketTransport CLinux Affinity ClusterState RedisClient WireProtocol TLSClient TokenAuth Telemetry "
    f"Logging {HTTP}",
    "Admin": f"ChatCore ClusterState RedisClient WireProtocol Affinity {NIO}",
    "LoadGenerator": "WireProtocol Affinity Telemetry CLinux COpenSSL",
    "MartletClient": f"TLSClient WebSocketTransport WireProtocol {HTTP}",
    "WebSocketTransport": f"CLinux COpenSSL CZlib TLSClient NIOSSL NIOTLS {HTTP}",
    "TLSClient": "NIOCore NIOSSL",
    "ClusterState": "RedisClient ChatCore WireProtocol NIOCore",
    "ChatCore": "WireProtocol",
    "RedisClient": f"HiredisShim TLSClient Logging {NIO}",
    "TokenAuth": "ChatCore COpenSSL WireProtocol",
    "ProtobufCodec": "WireProtocol SwiftProtobuf",
    "WireProtocol": "",
    "Affinity": "",
    "Telemetry": "Logging",
    "WebAssets": "",
    "HiredisShim": "CHiredis",
    "CHiredis": "",
    "COpenSSL": "",
    "CZlib": "",
    "CLinux": "",
}
# The system's modules that any target may import.
SYSTEM = {"Swift", "Glibc", "Synchronization", "Dispatch", "_Concurrency"}
# Files that may pass 500 lines, with the reason.
LONG = {
    client.SOURCE,  # one class, the whole of what its users call
    protobuf.CODE,  # written by protoc
}
# Debian's development package of a library, and the package that a running image needs.
RUNTIME_PACKAGE = {"libhiredis-dev": "libhiredis0.14", "libssl-dev": "libssl3", "zlib1g-dev": "zlib1g"}

IMPORT = re.compile(
    r"^\s*(?:@\w+(?:\([^)]*\))?\s+)*(?:(?:public|package|internal|fileprivate|private)\s+)?import\s+"
    r"(?:(?:struct|class|enum|protocol|func|var|let|typealias)\s+)?(\w+)"
)


def swift_imports(tree, file):
    for number, line in enumerate(tree.lines(file), 1):
        match = IMPORT.match(line)
        if match:
            yield number, match.group(1)


def permitted(target):
    words = ALLOWED[target].split()
    return set(ALLOWED) | set(words) if "*" in words else set(words)


def rule_format(tree):
    if not shutil.which("swift"):
        return ["swift: not found, so the format cannot be checked"]
    files = tree.matching(r"(Sources|Tests)/.*\.swift|Package\.swift")
    if not files:
        return []
    done = subprocess.run(
        ["swift", "format", "lint", "--strict", "--parallel", *files], cwd=tree.root, capture_output=True, text=True
    )
    problems = [line for line in done.stderr.splitlines() if ": error:" in line or ": warning:" in line]
    return problems or ([f"swift format: {done.stderr.strip()}"] if done.returncode else [])


def rule_imports(tree):
    problems = []
    for file in tree.matching(r"Sources/[^/]+/.*\.swift"):
        target = file.split("/")[1]
        if target not in ALLOWED:
            problems.append(f"{file}: target {target} has no line in the table of .ci/lint_rules.py")
            continue
        for number, module in swift_imports(tree, file):
            if module not in permitted(target) | SYSTEM | {"Foundation", "FoundationEssentials"}:
                problems.append(f"{file}:{number}: {target} may not import {module}")
    for target in sorted({f.split("/")[1] for f in tree.matching(r"Sources/[^/]+/.*")} - set(ALLOWED)):
        problems.append(f"Sources/{target}: no line in the table of .ci/lint_rules.py")
    manifest = tree.text("Package.swift")
    target = r"\.(?:executableTarget|target)\(\s*name: \"(\w+)\",\s*dependencies: \[(.*?)\]"
    products = dict(re.findall(r"let (\w+): Target\.Dependency = \.product\(name: \"(\w+)\"", manifest))
    for name, listed in re.findall(target, manifest, re.S):
        for quoted, bare in re.findall(r"\"(\w+)\"|\b([a-z]\w+)\b", listed):
            module = quoted or products.get(bare, bare)
            if name in ALLOWED and module not in permitted(name):
                problems.append(f"Package.swift: {name} may not depend on {module}")
    return problems


def rule_foundation(tree):
    problems = []
    for file in tree.matching(r"Sources/.*(?<!\.pb)\.swift"):
        lines = tree.lines(file)
        for number, module in swift_imports(tree, file):
            if module == "FoundationEssentials":
                before = lines[number - 2].strip() if number > 1 else ""
                if "//" not in lines[number - 1] and not before.startswith("//"):
                    problems.append(f"{file}:{number}: FoundationEssentials needs a comment that says why")
            elif module.startswith("Foundation"):
                problems.append(f"{file}:{number}: no Foundation in Sources (it brings 40 MB of ICU)")
    return problems


def markdown(tree):
    return tree.matching(r"[^/]+\.md|docs/.*\.md|docker/.*\.md")


def without_code_blocks(text):
    return re.sub(r"^```.*?^```", lambda m: "\n" * m.group(0).count("\n"), text, flags=re.S | re.M)


def anchors(text):
    found = set()
    for heading in re.findall(r"^#+\s+(.*)$", without_code_blocks(text), re.M):
        words = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
        found.add(words.strip().replace(" ", "-"))
    return found | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))


def rule_docs(tree):
    """Relative links, their anchors, and back-ticked paths of this repository lead somewhere."""
    problems = []
    heads = r"(?:Sources|Tests|docs|docker|\.ci)"
    for file in markdown(tree):
        folder = Path(file).parent
        text = without_code_blocks(tree.text(file))
        for number, line in enumerate(text.splitlines(), 1):
            for link in re.findall(r"!?\[[^\]]*\]\(([^)\s]+)[^)]*\)|<img[^>]*src=\"([^\"]+)\"", line):
                target = link[0] or link[1]
                if re.match(r"[a-z]+:", target):
                    continue
                path, _, fragment = target.partition("#")
                there = file if not path else str(Path(tree.root, folder, path).resolve().relative_to(tree.root.resolve()))
                if not tree.has(there):
                    problems.append(f"{file}:{number}: the link {target} leads nowhere")
                elif fragment and there.endswith(".md") and fragment not in anchors(tree.text(there)):
                    problems.append(f"{file}:{number}: {there} has no heading for #{fragment}")
            for path in re.findall(rf"`({heads}/[\w./+-]+)`", line):
                if not tree.has(path.rstrip("/")):
                    problems.append(f"{file}:{number}: there is no {path}")
    return problems


def rule_guarantees(tree):
    """Each of G1 … G7 has a test that carries its number."""
    page = "docs/guarantees.md"
    shown = generated.tests_by_number(tree)
    problems = [f"{page}: no test carries G{n}" for n in range(1, 8) if f"G{n}" not in shown]
    for n in range(1, 8):
        if generated.begin(f"tests of G{n}") not in tree.text(page):
            problems.append(f"{page}: no place for the tests of G{n}")
    return problems


def rule_threats(tree):
    """Each threat of the model has a test that carries its number, and each number that a test carries is a threat."""
    page = "docs/threat-model.md"
    text = tree.text(page)
    threats = re.findall(r"^### (T\d+) ", text, re.M)
    shown = {number for number in generated.tests_by_number(tree) if number.startswith("T")}
    problems = [f"{page}: no test carries {threat}" for threat in threats if threat not in shown]
    problems += [f"{page}: no threat has the number {number}, which a test carries" for number in sorted(shown - set(threats))]
    problems += [f"{page}: {threat} stands there twice" for threat in sorted({t for t in threats if threats.count(t) > 1})]
    for threat in threats:
        if generated.begin(f"tests of {threat}") not in text:
            problems.append(f"{page}: no place for the tests of {threat}")
    return problems


def rule_generated(tree):
    return [
        f"{page}: not what the code says: run `make docs`"
        for page, text in generated.pages(tree).items()
        if text != tree.text(page)
    ]


def settings(tree):
    """Every MARTLET_ key of the one table of settings."""
    files = tree.matching(r"Sources/martlet/Settings[^/]*\.swift")
    return {key for file in files for key in re.findall(r"\"(MARTLET_[A-Z_]+)\"", tree.text(file))}


def rule_settings(tree):
    known = settings(tree)
    problems = []
    pages = markdown(tree) + tree.matching(r"docker/.*|\.env\.example|docker/\.env.*|Makefile|Tests/Peers/.*")
    for file in sorted(set(pages)):
        for number, line in enumerate(tree.lines(file), 1):
            for key in re.findall(r"\bMARTLET_[A-Z_]*[A-Z]\b(?!\*|_)", line):
                # What a test reads is no setting.
                if key not in known and not key.startswith("MARTLET_TEST_"):
                    problems.append(f"{file}:{number}: {key} is no key of Sources/martlet/Settings.swift")
    page = tree.text("docs/operations.md")
    for key in sorted(known):
        if f"| `{key}` |" not in page:
            problems.append(f"docs/operations.md: the table of settings lacks {key}")
    return problems


def rule_metrics(tree):
    """The table of metrics in docs/operations.md and the code name the same ones."""
    made = set()
    for file in tree.matching(r"Sources/.*\.swift"):
        made.update(re.findall(r"\b(?:gauge|counter|histogram)\(\s*\"(martlet_\w+)\"", tree.text(file)))
    told = set(re.findall(r"^\| `(martlet_\w+)` \|", tree.text("docs/operations.md"), re.M))
    problems = [f"docs/operations.md: the table of metrics lacks {name}" for name in sorted(made - told)]
    return problems + [f"docs/operations.md: no code makes the metric {name}" for name in sorted(told - made)]


def make_packages(tree):
    """The apt packages that `make deps` installs: the words of the Makefile's …PACKAGES variables, and redis-server."""
    joined = tree.text("Makefile").replace("\\\n", " ")
    words = [w for value in re.findall(r"^\w*PACKAGES\s*[:?+]?=\s*(.*)$", joined, re.M) for w in value.split()]
    return {w for w in words if not w.startswith("$")} | {"redis-server"}


def rule_docker(tree):
    file = "docker/Dockerfile"
    text = tree.text(file).replace("\\\n", " ")
    problems = []
    if not text:
        return problems
    known = make_packages(tree)
    running = {RUNTIME_PACKAGE.get(p) for p in known} | {"ca-certificates", "libstdc++6"}
    stages = re.split(r"^FROM ", text, flags=re.M)[1:]
    for index, stage in enumerate(stages):
        for arguments in re.findall(r"^COPY (.*)$", stage, re.M):
            words = [w for w in arguments.split() if not w.startswith("--")]
            if "--from=" not in arguments:
                problems += [f"{file}: COPY {w}: there is no such path" for w in words[:-1] if not tree.has(w)]
        for command in re.findall(r"apt-get install ([^&;\n]*)", stage):
            allowed = known if index < len(stages) - 1 else running
            where = "make deps" if index < len(stages) - 1 else "what make deps installs, as runtime packages"
            for package in (w for w in command.split() if not w.startswith("-")):
                if package not in allowed:
                    problems.append(f"{file}: apt package {package} is not in {where}")
    for dockerfile in re.findall(r"dockerfile:\s*(\S+)", tree.text("docker/compose.yaml")):
        if not tree.has(dockerfile):
            problems.append(f"docker/compose.yaml: there is no {dockerfile}")
    return problems


def rule_shell(tree):
    problems = []
    for file in tree.files:
        first = (tree.lines(file) or [""])[0] if "." not in Path(file).name[1:] or file.endswith(".sh") else ""
        if file.endswith(".sh") or re.match(r"#!.*\b(ba|da)?sh\b", first):
            done = subprocess.run(["bash", "-n", str(tree.root / file)], capture_output=True, text=True)
            if done.returncode:
                problems.append(f"{file}: {done.stderr.strip().splitlines()[0]}")
    return problems


def rule_tracked(tree):
    problems = []
    machine = re.compile(r"(?<![\w.~-])/(?:work|farm|root|home/[a-z]\w*|opt/swift)/|/tmp/bash_jobs")
    for file in tree.files:
        parts = Path(file).parts
        if parts[-1] == "Package.resolved" or parts[0].startswith(".build") or parts[0] in (".martlet", ".swiftpm"):
            problems.append(f"{file}: not to be tracked")
        if file.endswith((".png", ".jpg", ".ico", ".woff2")):
            continue
        for number, line in enumerate(tree.lines(file), 1):
            if machine.search(line) and not file.startswith(".ci/lint"):
                problems.append(f"{file}:{number}: a path of one machine")
    return problems


def rule_lua(tree):
    problems = []
    for file in tree.matching(r"Sources/.*\.lua"):
        head = []
        for line in tree.lines(file):
            if line.strip() and not line.startswith(("--", "#!")):
                break
            head.append(line)
        for word in ("KEYS", "ARGV", "RETURNS", "ATOMICITY"):
            if not any(re.match(rf"--\s*{word}\b", line) for line in head):
                problems.append(f"{file}: its head does not say {word}")
    return problems


SOURCE = r"(?:Sources|Tests|\.ci)/.*\.(?:swift|lua|js|mjs|py|c|h|sh|css|html)|\.ci/[\w-]+|Tests/Peers/[\w-]+"


def rule_length(tree):
    problems = []
    for file in tree.matching(SOURCE):
        count = len(tree.lines(file))
        if count > 500 and file not in LONG:
            problems.append(f"{file}: {count} lines; over 500 a file has more than one subject")
    problems += [f"{file}: listed as long in .ci/lint_rules.py, but not there" for file in LONG if not tree.has(file)]
    return problems


def rule_client(tree):
    """The JavaScript client that nodes serve is made of its source, one file, and small."""
    return [f"{client.SERVED}: {p}" for p in client.problems(tree.text(client.SOURCE), tree.text(client.SERVED))]


def rule_protobuf(tree):
    """The code of the protobuf messages is made of them."""
    return [f"{protobuf.CODE}: {p}" for p in protobuf.problems(tree.text(protobuf.SOURCE), tree.text(protobuf.CODE))]


def rule_make(tree):
    """Every `make TARGET` that a page names exists; a target says in one line what it does, or is a step of another."""
    text = tree.text("Makefile")
    rules = re.findall(r"^([a-z][\w-]*):(?!=)([^#\n]*)", text, re.M)
    targets = {name for name, _ in rules}
    steps = {step for _, needed in rules for step in needed.split()}
    helped = set(re.findall(r"^([a-z][\w-]*):(?!=).*##\s*\S", text, re.M))
    problems = [f"Makefile: {t} has no ## line that says what it does" for t in sorted(targets - helped - steps)]
    for file in markdown(tree):
        for number, line in enumerate(tree.lines(file), 1):
            for target in re.findall(r"(?:`|^\s*|\$ )make ([a-z][\w-]*)", line):
                if target not in targets:
                    problems.append(f"{file}:{number}: the Makefile has no target {target}")
    return problems


def notes(tree):
    """What is worth a look but fails nothing."""
    long = [(len(tree.lines(f)), f) for f in tree.matching(SOURCE)]
    return [f"note: {file} has {n} lines" for n, file in sorted(long, reverse=True) if n > 400]


RULES = {
    "format": rule_format,
    "imports": rule_imports,
    "foundation": rule_foundation,
    "docs": rule_docs,
    "guarantees": rule_guarantees,
    "threats": rule_threats,
    "generated": rule_generated,
    "settings": rule_settings,
    "metrics": rule_metrics,
    "docker": rule_docker,
    "shell": rule_shell,
    "tracked": rule_tracked,
    "lua": rule_lua,
    "length": rule_length,
    "client": rule_client,
    "protobuf": rule_protobuf,
    "make": rule_make,
}
