"""The files of an output folder: which shards are in which."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..inputs.plan import Shard

WHOLE, SOME = "part", "some"  # how names begin: of an output's files, and of those of an output that is not whole yet
_NAME = re.compile(r"(part|some)-\d{5,}-of-\d{5,}\.(jsonl|csv|parquet)")


@dataclass(frozen=True)
class Part:
    """One file of an output folder."""

    name: str
    shards: tuple[Shard, ...]


def parts_of(
    shards: Sequence[Shard],
    least_rows: int,
    ending: str,
    prefix: str = WHOLE,
    rows: Callable[[Shard], int] = lambda shard: shard.rows,
) -> list[Part]:
    """Consecutive shards in groups of at least so many rows, but for the last one. One file at least, without rows.

    Args:
        shards: in the order of the input.
        least_rows: of a file.
        ending: of the files' names: the format.
        prefix: of the files' names.
        rows: how many rows a shard has; shards without any are left out.
    """
    groups = list(_groups(shards, least_rows, rows)) or [[]]
    return [
        Part(f"{prefix}-{number:05d}-of-{len(groups):05d}.{ending}", tuple(group))
        for number, group in enumerate(groups)
    ]


def parts_in(folder: Path) -> set[str]:
    """Names of the files of a folder that have the name of a part."""
    return {file.name for file in folder.iterdir() if _NAME.fullmatch(file.name)} if folder.is_dir() else set()


def others_in(folder: Path) -> list[str]:
    """Names of what a folder has besides parts and what killed processes have left of some; hidden files do no harm."""
    if not folder.is_dir():
        return []
    return sorted(
        file.name for file in folder.iterdir() if not (_NAME.fullmatch(file.name) or file.name.startswith("."))
    )


def _groups(shards: Sequence[Shard], least_rows: int, rows: Callable[[Shard], int]) -> Iterator[list[Shard]]:
    group: list[Shard] = []
    count = 0
    for shard in shards:
        if added := rows(shard):
            group.append(shard)
            count += added
        if count >= least_rows:
            yield group
            group, count = [], 0
    if group:
        yield group
