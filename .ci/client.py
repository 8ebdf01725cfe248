#!/usr/bin/env python3
"""Makes the martlet.js that nodes serve out of its source: one file, minified by esbuild, with a last line that says of what.

The file is in the repository, so that nobody needs esbuild but who changes the source. `make lint` compares the line.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = "Sources/WebAssets/Client/martlet.js"
SERVED = "Sources/WebAssets/Assets/martlet.js"
LIMIT = 13 * 1024


def line(source, code):
    """The last line: what the file was made of, and that nobody changed it since."""
    return "// " + " ".join(hashlib.sha256(text.encode()).hexdigest()[:16] for text in (source, code)) + "\n"


def problems(source, served):
    if not served:
        return ["not there: run `make client`"]
    code, _, last = served.rstrip("\n").rpartition("\n")
    found = []
    if last + "\n" != line(source, code + "\n"):
        found.append(f"not made of {SOURCE} as it is: run `make client`")
    size = len(served.encode())
    if size >= LIMIT:
        found.append(f"{size} bytes; its users are promised less than {LIMIT}")
    if "import" in code:
        found.append("it imports something; its users are promised one file")
    return found


def main():
    root = Path(__file__).resolve().parent.parent
    if not shutil.which("esbuild"):
        print("esbuild is missing: `apt-get install esbuild` (or npm) installs it.", file=sys.stderr)
        return 1
    source = (root / SOURCE).read_text()
    options = ["--minify", "--format=esm", "--target=es2022", "--charset=utf8", "--legal-comments=inline"]
    code = subprocess.run(["esbuild", *options], input=source, check=True, capture_output=True, text=True).stdout
    served = code + line(source, code)
    (root / SERVED).write_text(served)
    print(f"{SERVED}: {len(served.encode())} bytes")
    for problem in problems(source, served):
        print(f"{SERVED}: {problem}", file=sys.stderr)
    return 1 if problems(source, served) else 0


if __name__ == "__main__":
    sys.exit(main())
