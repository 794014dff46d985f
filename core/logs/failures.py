"""Failures that are known by what programs write about them: what each means, and what to change."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class KnownFailure:
    """One kind of failure.

    Args:
        name: for tests and the docs, such as gpu-memory.
        pattern: searched in one line of a log. `cause` and `advice` may use its named groups: "{limit}".
        cause: what has happened, in plain words.
        advice: what to change: which key of the spec, to which kind of value.
        is_echo: whether it follows from another failure, which counts more where a log has both.
        may_pass: whether the same job may succeed when it is started again, with nothing changed.
        at_start: whether it explains only why a program has not started, and not what happens to one that has worked.
    """

    name: str
    pattern: re.Pattern[str]
    cause: str
    advice: str
    is_echo: bool = False
    may_pass: bool = False
    at_start: bool = False


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why a job has failed, and what to do. Empty strings where nothing is known."""

    cause: str = ""  # in plain words
    line: str = ""  # of a log, that shows it
    advice: str = ""  # what to change
    may_pass: bool = False  # whether the same job may succeed when it is started again, with nothing changed

    def __str__(self) -> str:
        """The cause, else the line; with the advice."""
        return "; ".join(part for part in (self.cause or self.line, self.advice) if part)


def known(
    name: str,
    pattern: str,
    cause: str,
    advice: str,
    *,
    is_echo: bool = False,
    may_pass: bool = False,
    at_start: bool = False,
) -> KnownFailure:
    """A `KnownFailure` whose pattern ignores case."""
    compiled = re.compile(pattern, re.IGNORECASE)
    return KnownFailure(
        name=name,
        pattern=compiled,
        cause=cause,
        advice=advice,
        is_echo=is_echo,
        may_pass=may_pass,
        at_start=at_start,
    )


def find(lines: Iterable[str], table: Sequence[KnownFailure]) -> Explanation | None:
    """The first of the lines that shows a failure of the table which is no consequence of another one, explained.

    Where a line shows several failures, the first of the table counts.
    """
    rows = [row for row in table if not row.is_echo]
    for line in lines:
        for row in rows:
            found = row.pattern.search(line)
            if found is not None:
                return _explained(row, line, found.groupdict(""))
    return None


def find_echo(lines: Sequence[str], table: Sequence[KnownFailure]) -> Explanation | None:
    """The first failure of the table that is a consequence of another one and that a line shows, explained."""
    for row in table:
        shown = ((line, row.pattern.search(line)) for line in lines if row.is_echo)
        for line, found in shown:
            if found is not None:
                return _explained(row, line, found.groupdict(""))
    return None


def _explained(row: KnownFailure, line: str, words: Mapping[str, str]) -> Explanation:
    cause, advice = _filled(row.cause, words), _filled(row.advice, words)
    return Explanation(cause=cause, line=line, advice=advice, may_pass=row.may_pass)


def _filled(text: str, words: Mapping[str, str]) -> str:
    """The text with the words in place of "{name}"; other braces, such as those of TOML, stay."""
    return re.sub(r"\{(\w+)\}", lambda name: words.get(name[1], name[0]), text)
