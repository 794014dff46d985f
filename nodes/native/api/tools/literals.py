"""Values that a model writes neither as JSON nor as plain text, made JSON: literals of Python, and Gemma's.

What is no literal, such as a variable or a sum, becomes a string of its text.
"""

import json
import re
from dataclasses import dataclass

_MOST_DEPTH = 64
_SPACE = re.compile(r"[\s]*")
_WORD = re.compile(r"[^\s,:\[\](){}\"'=]+")
_INTEGER = re.compile(r"[+-]?[0-9]+(?:_[0-9]+)*")
_FLOAT = re.compile(r"[+-]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?")
_BASED = re.compile(r"0[xX][0-9a-fA-F]{1,64}|0[oO][0-7]{1,64}|0[bB][01]{1,64}")
_WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
_STRING_BEGIN = re.compile(r"[rRbBuUfF]{0,2}(?='|\")")
_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|x[0-9a-fA-F]{2}|[0-7]{1,3}|\n|.)", re.DOTALL)
_SHORT = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "\n": "", "/": "/", "'": "'",
          '"': '"', "\\": "\\"}  # fmt: skip
_QUOTE = '"'
_CLOSING = {"[": "]", "(": ")", "{": "}"}


class NoLiteralError(ValueError):
    """The text is no literal."""


@dataclass(frozen=True, slots=True)
class Notation:
    """How values are written."""

    quotes: tuple[str, ...]  # around strings, longer ones first
    escapes: bool  # strings have these, and letters before them
    bare_keys: bool  # of objects

    def json(self, text: str) -> str:
        """The JSON that `text` stands for."""
        try:
            return _Reader(text, self).whole()
        except NoLiteralError:
            return json.dumps(whole_characters(text.strip()), ensure_ascii=False)


PYTHON = Notation(('"""', "'''", '"', "'"), escapes=True, bare_keys=False)
GEMMA = Notation(('<|"|>',), escapes=False, bare_keys=True)
FUNCTION_GEMMA = Notation(("<escape>",), escapes=False, bare_keys=True)


class _Reader:
    """Reads one value."""

    def __init__(self, text: str, notation: Notation) -> None:
        self._text, self._notation, self._place = text, notation, 0

    def whole(self) -> str:
        """All of the text, as JSON. Raises NoLiteralError."""
        value = self._value(0)
        self._skip()
        if self._place < len(self._text):
            raise NoLiteralError
        return value

    def _value(self, depth: int) -> str:
        self._skip()
        if depth > _MOST_DEPTH:
            raise NoLiteralError
        if self._at_string():
            return json.dumps(self._string(), ensure_ascii=False)
        character = self._text[self._place : self._place + 1]
        if character == "{":
            return self._braces(depth + 1)
        if character in _CLOSING:
            return self._items(_CLOSING[character], depth + 1)
        return _scalar(self._word())

    def _items(self, closing: str, depth: int) -> str:
        self._place += 1
        items: list[str] = []
        commas = 0
        while not self._take(closing):
            items.append(self._value(depth))
            commas += self._take(",")
            if commas < len(items) and not self._is_at(closing):
                raise NoLiteralError
        if closing == ")" and len(items) == 1 and not commas:
            return items[0]
        return f"[{', '.join(items)}]"

    def _braces(self, depth: int) -> str:
        """An object, or one of Python's sets."""
        self._place += 1
        items: list[str] = []
        commas, values = 0, 0
        while not self._take("}"):
            key = self._key(depth)
            if self._take(":"):
                values += 1
                key = f"{key if key.startswith(_QUOTE) else json.dumps(key)}: {self._value(depth)}"
            items.append(key)
            commas += self._take(",")
            if commas < len(items) and not self._is_at("}"):
                raise NoLiteralError
        if values not in (0, len(items)):
            raise NoLiteralError
        inside = ", ".join(items)
        return f"[{inside}]" if items and not values else f"{{{inside}}}"

    def _key(self, depth: int) -> str:
        self._skip()
        if self._notation.bare_keys and not self._at_string():
            end = self._text.find(":", self._place)
            if end < 0:
                raise NoLiteralError
            key, self._place = self._text[self._place : end], end
            return json.dumps(whole_characters(key.strip()), ensure_ascii=False)
        return self._value(depth)

    def _word(self) -> str:
        found = _WORD.match(self._text, self._place)
        if found is None:
            raise NoLiteralError
        self._place = found.end()
        return found[0]

    def _at_string(self) -> bool:
        if not self._notation.escapes:
            return self._text.startswith(self._notation.quotes, self._place)
        return _STRING_BEGIN.match(self._text, self._place) is not None

    def _string(self) -> str:
        prefix = ""
        if self._notation.escapes:
            found = _STRING_BEGIN.match(self._text, self._place)
            assert found is not None
            prefix, self._place = found[0], found.end()
        quote = next(quote for quote in self._notation.quotes if self._text.startswith(quote, self._place))
        begin = self._place + len(quote)
        end = string_end(self._text, begin, quote, escapes=self._notation.escapes)
        if end < 0:
            raise NoLiteralError
        self._place = end + len(quote)
        text = self._text[begin:end]
        if self._notation.escapes and "r" not in prefix.lower():
            text = _ESCAPE.sub(_unescaped, text)
        return whole_characters(text)

    def _skip(self) -> None:
        found = _SPACE.match(self._text, self._place)
        self._place = found.end() if found else self._place

    def _is_at(self, character: str) -> bool:
        self._skip()
        return self._text.startswith(character, self._place)

    def _take(self, character: str) -> bool:
        found = self._is_at(character)
        self._place += found
        return found


def string_end(text: str, begin: int, quote: str, *, escapes: bool) -> int:
    """The place of the quote that ends a string whose text begins at `begin`; -1 if there is none."""
    while (end := text.find(quote, begin)) >= 0:
        escape = text.find("\\", begin, end) if escapes else -1
        if escape < 0:
            return end
        begin = escape + 2
    return -1


def whole_characters(text: str) -> str:
    """Text in which halves of characters, as JSON escapes them, are put together, or replaced where one is alone."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _scalar(word: str) -> str:
    if word in _WORDS:
        return _WORDS[word]
    if _INTEGER.fullmatch(word):
        digits = word.replace("_", "").lstrip("+")
        sign, digits = ("-", digits[1:]) if digits.startswith("-") else ("", digits)
        return sign + (digits.lstrip("0") or "0")
    if _BASED.fullmatch(word):
        return str(int(word, 0))
    if _FLOAT.fullmatch(word):
        return _float(word.replace("_", "").lstrip("+"))
    raise NoLiteralError


def _float(word: str) -> str:
    """A number as JSON writes it: with digits on both sides of the point."""
    sign, word = ("-", word[1:]) if word.startswith("-") else ("", word)
    number, letter, exponent = word.lower().partition("e")
    whole, point, fraction = number.partition(".")
    whole = whole.lstrip("0") or "0"
    return f"{sign}{whole}{f'.{fraction or 0}' if point else ''}{letter}{exponent}"


def _unescaped(found: re.Match[str]) -> str:
    code = found[0][1:]
    if code[0] in "uUx" and len(code) > 1:
        number = int(code[1:], 16)
        return chr(number) if number < 0x110000 else "\N{REPLACEMENT CHARACTER}"
    if code[0] in "01234567":
        return chr(int(code, 8))
    return _SHORT.get(code, found[0])
