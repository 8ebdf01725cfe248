"""Edits of source text that fail where the text is not what it was when they were written."""

import re


def replaced(text, old, new, count=1):
    found = text.count(old)
    if found != count:
        raise SystemExit(f"convert: {old!r} stands {found} times and not {count}")
    return text.replace(old, new)


def python3(text):
    """The syntax that Python 3 does not know: print statements, has_key, xrange."""
    text = re.sub(r"^(\s*)print (.+)$", r"\1print(\2)", text, flags=re.M)
    text = re.sub(r"^(\s*)print$", r"\1print()", text, flags=re.M)
    text = re.sub(r'([\w.]+(?:\[\w+\])?)\.has_key\(("[\w-]+"|\w+)\)', r"(\2 in \1)", text)
    text = re.sub(r"\bnot \((\w+) in ([\w.\[\]]+)\)", r"\1 not in \2", text)
    return text.replace("xrange(", "range(")
