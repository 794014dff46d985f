"""Taking secrets out of what goes into a log.

Engines print their arguments and their environment, and logs are kept, shown and sent to others.
"""

import json
import re
from collections.abc import Iterable, Mapping

from ...core.keys import MASK, is_secret_name

_MASK = MASK.encode()
_SHORTEST = 6  # characters; values such as "1" or "true" are no secrets, and would black out the log


def secret_values(environ: Mapping[str, str]) -> list[str]:
    """The values of variables with secret names."""
    return [value for name, value in environ.items() if is_secret_name(name)]


class Redactor:
    """Replaces secrets by *** in a stream, also where they are cut into pieces."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = sorted({form for secret in secrets for form in _forms(secret)}, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, self._secrets)) or b"(?!)")
        self._first_bytes = {secret[0] for secret in self._secrets}
        self._longest = len(self._secrets[0]) if self._secrets else 0
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What may be written after `data`: all but an end that could be the beginning of a secret."""
        text = self._held + data
        keep = self._beginning(text)
        parts, at = [], 0
        for match in self._pattern.finditer(text):
            if match.start() >= keep:
                break
            parts += [text[at : match.start()], _MASK]
            at = match.end()
        end = max(at, keep)
        self._held = text[end:]
        return b"".join([*parts, text[at:end]])

    def rest(self) -> bytes:
        """What is held at the stream's end; the mask, if it is more than a few bytes of a secret."""
        held, self._held = self._held, b""
        return _MASK if len(held) >= _SHORTEST else held

    def text(self, text: str) -> str:
        """A whole text, without the secrets in it."""
        return self._pattern.sub(_MASK, text.encode(errors="surrogateescape")).decode(errors="surrogateescape")

    def _beginning(self, text: bytes) -> int:
        """Where the end of `text` begins that more bytes could make a secret, or a longer one than it is."""
        for at in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[at] in self._first_bytes:
                end = text[at:]
                if any(len(end) < len(secret) and secret.startswith(end) for secret in self._secrets):
                    return at
        return len(text)


def _forms(secret: str) -> set[bytes]:
    """How a secret may stand in a log: line by line, with and without the escapes of JSON and of Python's repr."""
    lines = {line.strip() for line in secret.splitlines()}
    found = {form for line in lines for form in (line, json.dumps(line)[1:-1], repr(line)[1:-1])}
    return {form.encode(errors="surrogateescape") for form in found if len(form) >= _SHORTEST}
