"""The files that a lint rule sees: what git tracks or would track, or every file where there is no repository."""

import re
import subprocess
from functools import cached_property
from pathlib import Path


class Tree:
    def __init__(self, root):
        self.root = Path(root)

    @cached_property
    def files(self):
        if (self.root / ".git").exists():
            listed = subprocess.run(
                ["git", "-C", str(self.root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                check=True, capture_output=True, text=True,
            ).stdout.split("\0")
            return sorted(f for f in set(listed) if f and (self.root / f).is_file())
        return sorted(str(p.relative_to(self.root)) for p in self.root.rglob("*") if p.is_file())

    @cached_property
    def directories(self):
        found = {"."}
        for file in self.files:
            found.update(str(parent) for parent in Path(file).parents)
        return found

    def matching(self, pattern):
        """Files whose whole path matches the regular expression."""
        return [f for f in self.files if re.fullmatch(pattern, f)]

    def text(self, file):
        path = self.root / file
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    def lines(self, file):
        return self.text(file).splitlines()

    def has(self, path):
        path = str(Path(path))
        return path in self.directories or path in set(self.files)
