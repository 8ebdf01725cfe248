#!/usr/bin/env python3
"""Writes the table of settings in docs/operations.md from .env.example, which the code prints and a test checks."""

import re
import sys
from pathlib import Path

sys.dont_write_bytecode = True
BEGIN, END = "<!-- settings: written by make docs -->\n", "<!-- end of settings -->\n"


def table(env_example):
    rows = ["| key | default | what it is |", "| --- | --- | --- |"]
    for block in env_example.split("\n\n")[1:]:
        lines = block.strip().split("\n")
        key, _, default = lines[-1].lstrip("#").partition("=")
        text = " ".join(line.lstrip("# ") for line in lines[:-1]).replace("|", "\\|")
        rows.append(f"| `{key}` | {f'`{default}`' if default else ''} | {text} |")
    return "\n".join(rows) + "\n"


def with_table(page, env_example):
    return re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: BEGIN + table(env_example) + END, page, flags=re.S)


if __name__ == "__main__":
    root = Path(__file__).resolve().parent.parent
    page = root / "docs/operations.md"
    page.write_text(with_table(page.read_text(), (root / ".env.example").read_text()))
