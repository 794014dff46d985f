"""Where a ledger's files are, and what their names say.

batch.json           parameters of the batch
drivers/ID.json      sign of life of each driver
opening.N            which driver opens the ledger
N/                   generation N of the places of rows; the highest counts, others keep what rows had before
    plan             files and shards
    claims/SHARD.N   which driver has a shard, or had it when it was sealed; the highest N counts (claims.py)
    segments/SHARD.ID    records of a driver, as they come
    sealed/SHARD.jsonl   all records of a shard
    sealed/SHARD....sums     empty; its name says what these records add up to
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

FORMAT_VERSION = 2
PARAMETERS, DRIVERS, PLAN = "batch.json", "drivers", "plan"
_SEALED = re.compile(r"(\d+)\.jsonl", re.ASCII)
_SUMS = re.compile(r"(\d+)((?:\.\d+){6})\.sums", re.ASCII)
_SEGMENT = re.compile(r"(\d+)\.([0-9a-z-]+)\.jsonl", re.ASCII)
_GENERATION = re.compile(r"\d+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Sums:
    """What the records of some rows add up to."""

    answered: int = 0
    failed: int = 0
    blank: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(*(mine + theirs for mine, theirs in zip(self.figures, other.figures, strict=True)))

    @property
    def figures(self) -> tuple[int, ...]:
        """All of them, in order."""
        return (
            self.answered, self.failed, self.blank, self.prompt_tokens, self.cached_tokens, self.completion_tokens,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SumsName:
    """The name of the file that tells what the records of a sealed shard add up to."""

    shard: int
    sums: Sums

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """What a name says; None for that of another file."""
        match = _SUMS.fullmatch(name)
        return cls(int(match[1]), Sums(*map(int, match[2][1:].split(".")))) if match else None

    def __str__(self) -> str:
        return ".".join([shard_name(self.shard), *map(str, self.sums.figures), "sums"])


def shard_name(number: int) -> str:
    """How the names of a shard's files begin."""
    return f"{number:05d}"


def sealed_shard(name: str) -> int | None:
    """Whose records a sealed file has; None for the name of another file."""
    match = _SEALED.fullmatch(name)
    return int(match[1]) if match else None


def shard_of_segment(name: str) -> int | None:
    """Whose records a segment has; None for the name of another file."""
    match = _SEGMENT.fullmatch(name)
    return int(match[1]) if match else None


@dataclass(frozen=True)
class Generation:
    """The folder of one generation."""

    path: Path

    @classmethod
    def all(cls, ledger: Path) -> list[Self]:
        """Those that are there, the latest first. Raises OSError."""
        found = [cls(path) for path in ledger.iterdir() if _GENERATION.fullmatch(path.name) and path.is_dir()]
        return sorted(found, key=lambda generation: generation.number, reverse=True)

    @classmethod
    def newest(cls, ledger: Path) -> Self | None:
        """That which counts; None where there is none yet. Raises OSError."""
        return next(iter(cls.all(ledger)), None)

    @property
    def number(self) -> int:
        """Which it is, from 0."""
        return int(self.path.name)

    @property
    def plan(self) -> Path:
        """Its plan."""
        return self.path / PLAN

    @property
    def claims(self) -> Path:
        """Its claims."""
        return self.path / "claims"

    @property
    def segments(self) -> Path:
        """Its segments."""
        return self.path / "segments"

    @property
    def sealed(self) -> Path:
        """Its sealed shards."""
        return self.path / "sealed"

    def make(self) -> None:
        """Make its folders. Raises OSError."""
        for folder in (self.path, self.claims, self.segments, self.sealed):
            folder.mkdir(exist_ok=True)

    def segment(self, shard: int, driver: str) -> Path:
        """The segment of a shard that a driver writes."""
        return self.segments / f"{shard_name(shard)}.{driver}.jsonl"

    def sealed_file(self, shard: int) -> Path:
        """Where the records of a shard are when it is sealed."""
        return self.sealed / f"{shard_name(shard)}.jsonl"

    def sums_file(self, shard: int, sums: Sums) -> Path:
        """The file whose name says what the records of a sealed shard add up to."""
        return self.sealed / str(SumsName(shard, sums))

    def segments_by_shard(self, shards: int) -> dict[int, list[Path]]:
        """The segments that are there, of each of the plan's first `shards` shards that has any. Raises OSError."""
        found: dict[int, list[Path]] = {}
        for name in os.listdir(self.segments):
            shard = shard_of_segment(name)
            if shard is not None and shard < shards:
                found.setdefault(shard, []).append(self.segments / name)
        return found
