#!/usr/bin/env python3
"""Makes the Swift code of martlet.proto, with a last line that says of what.

The code is in the repository, so that nobody needs protoc but who changes the messages. `make lint` compares the line.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from client import line

SOURCE = "Sources/WebAssets/Protocol/martlet.proto"
CODE = "Sources/ProtobufCodec/martlet.pb.swift"
PLUGIN = "protoc-gen-swift"


def problems(source, made):
    code, _, last = made.rstrip("\n").rpartition("\n")
    if not made or last + "\n" != line(source, code + "\n"):
        return [f"not made of {SOURCE} as it is: run `make protobuf`"]
    return []


def plugin(root):
    """That of the swift-protobuf which the code is built with."""
    package = root / ".build/checkouts/swift-protobuf"
    swift = [os.environ.get("SWIFT", "swift")]
    if not package.is_dir():
        subprocess.run([*swift, "package", "--package-path", root, "resolve"], check=True)
    build = [*swift, "build", "-c", "release", "--package-path", package, "--scratch-path", root / ".build/protoc-gen-swift"]
    subprocess.run([*build, "--product", PLUGIN], check=True)
    return root / ".build/protoc-gen-swift/release" / PLUGIN


def main():
    root = Path(__file__).resolve().parent.parent
    if not shutil.which("protoc"):
        print("protoc is missing: `apt-get install protobuf-compiler` installs it.", file=sys.stderr)
        return 1
    source, code = root / SOURCE, root / CODE
    options = "--swift_opt=Visibility=Package,UseAccessLevelOnImports=true"
    subprocess.run(
        ["protoc", f"--plugin={plugin(root)}", f"--swift_out={code.parent}", options, f"-I{source.parent}", source.name],
        check=True)
    made = code.read_text()
    code.write_text(made + line(source.read_text(), made))
    print(CODE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
