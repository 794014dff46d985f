"""Regular expressions of JSON schemas that the library would not hold a string to.

It compiles a pattern to one for the string as JSON writes it. Where a class of characters has control characters and
leaves out `"` or the backslash, it lets these two through, escaped; and control characters without a short escape are
left out of the answer, as no \\u is allowed. Both are refused.
"""

import re

# An escaped character, or a class; one that never ends goes to the end, so that nothing is looked at twice.
_PART = re.compile(r"\\.|\[(?P<negated>\^?)(?P<content>\]?(?:\\.|[^\]\\])*)(?:\]|\\?\Z)", re.DOTALL)
_CONTROLS = re.compile(r"(?:\\x|\\u00)00-(?:\\x|\\u00)1f", re.IGNORECASE)
_CONTROL = re.compile(r"\\x[01][0-9a-f]|\\u00[01][0-9a-f]|\\c[a-z]|\\0|[\x00-\x07\x0b\x0e-\x1f]", re.IGNORECASE)
# Ranges from a control character on that have both `"` and the backslash in them.
_WIDE = re.compile(r"(?:\\x|\\u00)[01][0-9a-f]-(?:(?:\\x|\\u00)(?:5[c-f]|[6-9a-f][0-9a-f])|\\u(?!00)[0-9a-f]{4})", re.I)


def fault(pattern: str) -> str | None:
    """What the library would not obey in `pattern`; None if there is nothing."""
    for part in _PART.finditer(pattern):
        content = part["content"] or ""
        if part["negated"] and ('"' in content or "\\\\" in content) and not _CONTROLS.search(content):
            return f'[^{content[:40]}] leaves out " or \\, and must leave out control characters too: add \\x00-\\x1f'
    rest = _PART.sub(_positive, pattern)
    return "control characters but for \\f, \\n, \\r and \\t are not supported" if _CONTROL.search(rest) else None


def _positive(part: re.Match[str]) -> str:
    """What a part of a pattern lets through by name; nothing of a negated class."""
    if part["content"] is None:
        return part[0]
    return "" if part["negated"] else _WIDE.sub("", part["content"])
