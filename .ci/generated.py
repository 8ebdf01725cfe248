#!/usr/bin/env python3
"""The parts of docs that come from the code. Run by `make docs`, which writes them; `make lint` compares them.

- docs/operations.md: the table of settings, from .env.example (which the code prints and a test checks).
- docs/guarantees.md: below each guarantee the tests that carry its number: `@Test("G4: …")`; and the chaos scenarios, each with
  the protection without which it fails, from Tests/ChaosTests/Sabotage.swift.
- docs/threat-model.md: below each threat the tests that carry its number: `@Test("G7, T16: …")`; a browser test says it in its
  docstring: `T12: …`.
"""

import re
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

END = "<!-- end -->\n"


def begin(what):
    return f"<!-- {what}: written by make docs -->\n"


def settings_table(env_example):
    rows = ["| key | default | what it is |", "| --- | --- | --- |"]
    for block in env_example.split("\n\n")[1:]:
        lines = block.strip().split("\n")
        key, _, default = lines[-1].lstrip("#").partition("=")
        text = " ".join(line.lstrip("# ") for line in lines[:-1]).replace("|", "\\|")
        rows.append(f"| `{key}` | {f'`{default}`' if default else ''} | {text} |")
    return "\n".join(rows) + "\n"


NUMBERS = r"((?:[GT]\d+,? ?(?:and )?)+): "


def tests_by_number(tree):
    """Guarantee (G4) or threat (T12) to lines of Markdown."""
    found = {}
    titles = [
        (r"Tests/.*\.swift", r"@Test\(\s*\"" + NUMBERS + r"(.+?)\"\s*[,)]"),
        (r"Tests/BrowserTests/.*\.py", r"def test_\w+\(self\):\s*\"\"\"" + NUMBERS + r"(.+?)\.?\"\"\""),
    ]
    for files, pattern in titles:
        for file in tree.matching(files):
            for numbers, title in re.findall(pattern, tree.text(file)):
                for number in re.findall(r"[GT]\d+", numbers):
                    found.setdefault(number, []).append(f"- `{file}`: {title[0].upper()}{title[1:]}")
    return found


def sabotage_table(source):
    rows = ["| scenario | what it shows | fails without this: |", "| --- | --- | --- |"]
    pattern = r'scenario: "(.+?)",\s*shows: "(.+?)",\s*protection: "(.+?)"'
    rows += [f"| {' | '.join(cells)} |" for cells in re.findall(pattern, source)]
    return "\n".join(rows) + "\n"


def pages(tree):
    """The pages with what the code says now, by name."""
    parts = {
        "settings": settings_table(tree.text(".env.example")),
        "scenarios": sabotage_table(tree.text("Tests/ChaosTests/Sabotage.swift")),
    }
    for number, lines in tests_by_number(tree).items():
        parts[f"tests of {number}"] = "\n".join(lines) + "\n"
    result = {}
    for page in ("docs/operations.md", "docs/guarantees.md", "docs/threat-model.md"):
        result[page] = re.sub(
            r"<!-- ([\w ]+): written by make docs -->\n.*?" + re.escape(END),
            lambda match: begin(match.group(1)) + parts.get(match.group(1), "") + END,
            tree.text(page),
            flags=re.S,
        )
    return result


if __name__ == "__main__":
    from lint_tree import Tree

    root = Path(__file__).resolve().parent.parent
    for name, text in pages(Tree(root)).items():
        (root / name).write_text(text, encoding="utf-8")
