"""Text that others wrote, such as a line of a log, on a user's terminal."""

import re

# What a terminal obeys instead of showing it: control characters but tab and newline (C0, DEL, C1), line separators,
# and what reorders text (Unicode bidirectional controls); and surrogates, which no encoding can write.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def shown(text: str) -> str:
    """The text with what a terminal would obey written out, such as `\\x1b` for an escape; tabs and newlines stay."""
    return _OBEYED.sub(_written_out, text)


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
