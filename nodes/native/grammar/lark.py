"""A constraint as text for the library: Lark with its extensions %json and <[id]>, see llguidance's docs/syntax.md."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from .constraint import (
    After,
    Choices,
    Constraint,
    Ebnf,
    Either,
    Items,
    JsonSchema,
    Lark,
    Regex,
    Row,
    Tag,
    Tags,
    Text,
)
from .errors import ConstraintError
from .multiples import Multiples
from .schema import checked

FIRST_LINE = "%llguidance {}"
_TEXT = r"/(.|\n)*/"
_ANY = r"(?:.|\n)*"
_GAP = r"/[ \t\r\n]{1,8}/"
_MAX_TAGS = 1024
_MAX_CHOICES = 10_000
MAX_BYTES = 1 << 19  # of a constraint as text
_MAX_GRAMMAR = 1 << 16  # characters of Lark and EBNF
_MAX_TERMINALS = 4096  # strings and regular expressions of these: each takes memory for each

Translate = Callable[[str], str]


class Renderer:
    """Makes one constraint into text."""

    def __init__(
        self, special: Mapping[str, int], end_ids: Collection[int], regex_to_lark: Translate, ebnf_to_lark: Translate
    ) -> None:
        """
        Args:
            special: the ids of tokens that have no bytes, by their names.
            end_ids: those that end an answer. In fixed texts they are left out: they may come wherever it may end.
            regex_to_lark: escapes a regular expression.
            ebnf_to_lark: translates a grammar. Raises any Exception.
        """
        self._special, self._end_ids = special, end_ids
        names = sorted(filter(None, special), key=len, reverse=True)
        self._names = re.compile("|".join(map(re.escape, names))) if names else None
        self._regex_to_lark, self._ebnf_to_lark = regex_to_lark, ebnf_to_lark
        self._rules: list[str] = []
        self._others: list[dict[str, Any]] = []
        self._known: dict[int, str] = {}  # expressions by the ids of constraints, which live as long as this
        self._length = self._terminals = 0  # of Lark and EBNF
        self._multiples = Multiples()
        self._schemas = self._written = 0  # characters of schemas, and of rules

    def render(self, constraint: Constraint) -> str:
        """Raises ConstraintError."""
        start = self._expression(constraint)
        main = "\n".join([FIRST_LINE, f"start: {start}", *self._rules, ""])
        return json_text({"grammars": [{"lark_grammar": main}, *self._others]})

    def _expression(self, constraint: Constraint) -> str:
        """The same object stands for the same rules."""
        found = self._known.get(id(constraint))
        if found is None:
            found = self._known[id(constraint)] = self._render(constraint)
        return found

    def _render(self, constraint: Constraint) -> str:
        match constraint:
            case JsonSchema():
                self._measure_schema(constraint.schema)
                schema = checked(constraint.schema, constraint.whitespace)
                return self._rule(f"%json {json_text(schema)}")
            case Regex():
                return self._rule(f"/{self._regex_to_lark(constraint.pattern)}/")
            case Choices():
                return self._choices(constraint.texts)
            case Lark():
                self._measure(constraint.text, "Lark")
                return self._other(constraint.text)
            case Ebnf():
                self._measure(constraint.text, "EBNF")
                return self._other(self._from_ebnf(constraint.text))
            case Tag():
                return self._rule(self._tag(constraint))
            case Tags():
                return self._tags(constraint)
            case After():
                return f"{self._before(constraint)} {self._expression(constraint.content)}"
            case Either():
                return self._rule(" | ".join(map(self._expression, constraint.options)))
            case Text():
                return self._text(constraint)
            case Row():
                return self._rule(self._row(constraint))
            case Items():
                return self._items(constraint)

    def _choices(self, texts: Sequence[str]) -> str:
        if not 1 <= len(texts) <= _MAX_CHOICES:
            raise ConstraintError(f"{len(texts)} choices: expected 1 to {_MAX_CHOICES}")
        return self._rule(
            " | ".join(_quoted(text) if text else '""' for text in texts)
        )  # no token is meant by its name

    def _from_ebnf(self, text: str) -> str:
        try:
            return self._ebnf_to_lark(text)
        except Exception as error:  # the library raises nothing narrower
            raise ConstraintError(str(error)) from error

    def _measure_schema(self, schema: Any) -> None:
        """Count a schema before anything is made of it: many may have the same definitions. Raises ConstraintError."""
        text = json_text(schema)
        self._schemas += len(text)
        if self._schemas > MAX_BYTES:
            raise ConstraintError(f"{self._schemas} characters of schemas: expected at most {MAX_BYTES}")
        self._multiples.add(text)

    def _measure(self, text: str, kind: str) -> None:
        """Count what a grammar adds to the constraint. Raises ConstraintError."""
        self._length += len(text)
        self._terminals += (text.count('"') + text.count("/")) // 2
        if self._length > _MAX_GRAMMAR:
            raise ConstraintError(f"{self._length} characters of {kind}: expected at most {_MAX_GRAMMAR}")
        self._multiples.add(text)
        if "%json" in text and "\\u" in text:
            raise ConstraintError("\\u in a grammar with %json: expected characters as they are")
        if self._terminals > _MAX_TERMINALS:
            raise ConstraintError(
                f"{self._terminals} strings and regular expressions by their quotes and slashes: "
                f"expected at most {_MAX_TERMINALS}"
            )

    def _rule(self, body: str, options: str = "") -> str:
        name = f"r{len(self._rules)}"
        self._rules.append(f"{name}{options}: {body}")
        self._written += len(body)
        if self._written > MAX_BYTES:
            raise ConstraintError(f"{self._written} characters: expected at most {MAX_BYTES}")
        return name

    def _other(self, text: str) -> str:
        name = f"g{len(self._others)}"
        self._others.append({"name": name, "lark_grammar": text})
        return f"@{name}"

    def _tag(self, tag: Tag, skip: int = 0) -> str:
        """`skip`: characters of `begin` that have been read."""
        return " ".join(filter(None, (self._literal(tag.begin[skip:], empty=""), self._expression(tag.content),
                                      self._literal(tag.end, empty=""))))  # fmt: skip

    def _tags(self, tags: Tags) -> str:
        if not 1 <= len(tags.tags) <= _MAX_TAGS:
            raise ConstraintError(f"{len(tags.tags)} tags: expected 1 to {_MAX_TAGS}")
        if tags.triggers:
            one = self._rule(" | ".join(self._triggered(trigger, tags.tags) for trigger in tags.triggers))
            return f"{self._rule(one + _count(tags.least, tags.most))} {self._rule(_TEXT)}"
        one = self._rule(" | ".join(self._tag(tag) for tag in tags.tags))
        separator = self._literal(tags.separator, empty="")
        more = f"({separator} {one})" + _count(max(tags.least - 1, 0), None if tags.most is None else tags.most - 1)
        several = f"{one} {more}" if tags.most != 1 else one
        return several if tags.least else f"({several})?"

    def _triggered(self, trigger: str, tags: Sequence[Tag]) -> str:
        begun = [tag for tag in tags if tag.begin.startswith(trigger)]
        if not trigger or not begun:
            raise ConstraintError(f"the trigger {trigger!r} begins no tag")
        return f"{self._up_to(trigger)} ({' | '.join(self._tag(tag, len(trigger)) for tag in begun)})"

    def _before(self, after: After) -> str:
        gap = self._rule(_GAP)
        free = f"{self._up_to(after.marker)} {gap}?"
        return free if after.begin is None else f"({self._literal(after.begin)} {free})?"

    def _text(self, text: Text) -> str:
        before, special, rest = self._at_special(text.end)
        last = re.escape(before) if special else ""
        found = [self._terminal(f"(?:{pattern}){last}") for pattern in text.patterns or (_ANY,)]
        unwanted = [self._terminal(f"(?:{pattern}){last}") for pattern in text.excluded]
        if text.end and not special:
            unwanted.append(self._terminal(f"{_ANY}{re.escape(text.end)}{_ANY}"))
        name = f"T{len(self._rules)}"
        self._rules.append(f"{name}: {' & '.join([*found, *('~' + pattern for pattern in unwanted)])}")
        if special:
            return self._rule(f"{name} {self._literal(special + rest, empty='')}")
        return self._rule(f"{name} {_quoted(text.end)}", "[lazy]") if text.end else self._rule(name)

    def _at_special(self, text: str) -> tuple[str, str, str]:
        """Fixed text up to its first special token, that, and the rest."""
        found = self._names.search(text) if self._names is not None else None
        return (text, "", "") if found is None else (text[: found.start()], found[0], text[found.end() :])

    def _terminal(self, pattern: str) -> str:
        return f"/{self._regex_to_lark(pattern)}/"

    def _row(self, row: Row) -> str:
        parts = (
            self._literal(part, empty="") if isinstance(part, str) else self._expression(part) for part in row.parts
        )
        return " ".join(filter(None, parts)) or '""'

    def _items(self, items: Items) -> str:
        """Two rules for each item: what may follow when none has been before it, and when one has."""
        separator = self._literal(items.separator, empty="")
        first, later = '""', '""'
        if items.more is not None:
            more = self._expression(items.more)
            later = self._rule(f"({separator} {more})*")
            first = self._rule(f"({more} {later})?")
        for content, is_required in reversed(items.items):
            item = self._expression(content)
            begun = f"{item} {later}"
            first = self._rule(begun if is_required else f"{begun} | {first}")
            later = self._rule(f"{separator} {begun}" if is_required else f"{separator} {begun} | {later}")
        return first

    def _up_to(self, marker: str) -> str:
        """Free text that ends with the first `marker`."""
        before, special, rest = self._at_special(marker)
        if not special:
            return self._rule(f"{_TEXT} {_quoted(marker)}", "[lazy]")
        text = self._rule(self._terminal(f"{_ANY}{re.escape(before)}") if before else _TEXT)
        return f"{text} {self._literal(special + rest, empty='')}"

    def _literal(self, text: str, empty: str = '""') -> str:
        """Fixed text, in which special tokens may be named."""
        if self._names is None:
            return _quoted(text) if text else empty
        parts, begin = [], 0
        for found in self._names.finditer(text):
            parts.append(_quoted(text[begin : found.start()]) if found.start() > begin else "")
            if (id := self._special[found[0]]) not in self._end_ids:
                parts.append(f"<[{id}]>")
            begin = found.end()
        parts.append(_quoted(text[begin:]) if text[begin:] else "")
        return " ".join(filter(None, parts)) or empty


def json_text(value: Any) -> str:
    """Raises ConstraintError for an integer that the encoder does not write."""
    try:
        return msgspec.json.encode(value).decode()
    except OverflowError as error:
        raise ConstraintError("it has an integer beyond 64 bits") from error


def _quoted(text: str) -> str:
    return json_text(text).replace("\x7f", "\\u007f")


def _count(least: int, most: int | None) -> str:
    return f"{{{least},{'' if most is None else most}}}" if (least, most) != (0, None) else "*"
