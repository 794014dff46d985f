"""Where a JSON value ends, in text that comes in pieces."""

import re

_IN_STRING = re.compile(r'["\\]')
_OUTSIDE = re.compile(r'["{}\[\]<]')
_SCALAR_END = re.compile(r"[\s,}\]<;]")


class JsonValue:
    """Follows one value by its brackets and quotes; whether it is valid otherwise is not looked at."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._escaped = self._is_scalar = self._begun = False

    @property
    def in_string(self) -> bool:
        """Whether what comes next is a part of a string."""
        return self._in_string

    def end_in(self, text: str) -> int | None:
        """How much of `text`, which goes on where the last one ended, belongs to the value; None: all, and more.

        Text begins with the value: no space. Outside of strings, `<` is no JSON and ends the value.
        """
        place = 0
        if not self._begun and text:
            self._begun = True
            self._is_scalar = text[0] not in '"{['
        if self._is_scalar:
            end = _SCALAR_END.search(text)
            return end.start() if end else None
        while place < len(text):
            if self._escaped:
                self._escaped = False
                place += 1
                continue
            found = (_IN_STRING if self._in_string else _OUTSIDE).search(text, place)
            if found is None:
                return None
            place = found.end()
            if self._take(found[0]):
                return found.start() if found[0] == "<" else place
        return None

    def _take(self, character: str) -> bool:
        """Whether the value ends here."""
        if self._in_string and character == "\\":
            self._escaped = True
        elif character == '"':
            self._in_string = not self._in_string
            return not self._in_string and not self._depth
        elif character == "<":
            return True
        else:
            self._depth += 1 if character in "{[" else -1
            return self._depth <= 0
        return False
