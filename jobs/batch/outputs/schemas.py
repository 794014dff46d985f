"""Finding the types of an input's columns: files say them, or all values of JSON are looked at, once."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ....core.errors import BatchError, RunDirectoryError, UsageError
from ....core.files import read_text, write_atomic
from ..inputs.plan import InputFile, Plan, Shard
from ..inputs.reader import Reader
from .columns import some_of
from .inference import Inference
from .place import fingerprint
from .types import Type

if TYPE_CHECKING:
    import pyarrow as pa

_NAME = "columns.json"
_WITHOUT_TYPES = frozenset({"jsonl", "text"})


class _Found(msgspec.Struct):
    of: str  # fingerprint of the input
    types: dict[str, Type]


def has_types(format: str) -> bool:
    """Whether the columns of files in this format have types of their own."""
    return format not in _WITHOUT_TYPES


def file_schemas(plan: Plan, reader: Reader) -> "list[tuple[str, pa.Schema]]":
    """Paths and schemas of the files whose columns have types. Raises BatchError."""
    first: dict[int, Shard] = {}
    for shard in plan.shards:
        if has_types(plan.files[shard.file].format):
            first.setdefault(shard.file, shard)
    if not any(file.rows for file in plan.files):  # the columns of an input without rows are those of the output too
        first = {shard.file: shard for shard in _empty_shards(plan.files)}
    return [(str(plan.files[number].path), _schema(plan, reader, shard)) for number, shard in first.items()]


def column_names(files: Sequence[InputFile]) -> Iterator[list[str]]:
    """Give the names of the columns of each file whose columns have types. Raises BatchError."""
    plan = Plan(files=tuple(files), shards=())
    reader = Reader(plan)
    try:
        for shard in _empty_shards(files):
            yield list(_schema(plan, reader, shard).names)
    finally:
        reader.close()


def row_types(plan: Plan, reader: Reader, ledger: Path) -> dict[str, Type]:
    """Types of the columns of all other files, found once and kept in the ledger's folder. Raises BatchError."""
    shards = [shard for shard in plan.shards if not has_types(plan.files[shard.file].format)]
    if not shards:
        return {}
    path, of = ledger / _NAME, fingerprint(plan)
    try:
        text = read_text(path)
        kept = None if text is None else msgspec.json.decode(text, type=_Found)
    except (RunDirectoryError, msgspec.MsgspecError):
        kept = None  # found again
    if kept is None or kept.of != of:
        kept = _Found(of, types_of(shards, reader))
        try:
            write_atomic(path, msgspec.json.encode(kept).decode(), mode=None)
        except RunDirectoryError as error:
            raise BatchError(str(error)) from error
    return kept.types


def check_kept(
    plan: Plan,
    reader: Reader,
    schemas: "Sequence[tuple[str, pa.Schema]]",
    kept: tuple[str, ...] | None,
    between: Callable[[], None] = lambda: None,
) -> None:
    """Raise UsageError for a column that is to be kept and that no row has, where only the rows can tell.

    Reads on until each has been seen: of a column that is there, mostly one row.

    Args:
        plan: of the input.
        reader: of the plan.
        schemas: of the files whose columns have types, with their paths.
        kept: names as asked for; None: all columns.
        between: called after each shard that was read.

    Raises BatchError too.
    """
    present = {name for _, schema in schemas for name in schema.names}
    wanted = set(kept or ()) - present
    shards = [shard for shard in plan.shards if not has_types(plan.files[shard.file].format)]
    if not wanted or not shards:
        return
    seen = _names_in_rows(shards, reader, wanted, between)
    for name in kept or ():
        if seen and name in wanted - seen:
            raise UsageError(f"--columns {name}: no row of the input has it; there are {some_of(seen | present)}")


def _names_in_rows(shards: Iterable[Shard], reader: Reader, wanted: Set[str], between: Callable[[], None]) -> set[str]:
    """Names of columns of the rows of shards, until all that are wanted are found."""
    found: set[str] = set()
    for shard in shards:
        for row in reader.rows(shard):
            if row.value is not None:
                found.update(row.value)
                if wanted <= found:
                    return found
        between()
    return found


def types_of(shards: Iterable[Shard], reader: Reader) -> dict[str, Type]:
    """Types of the columns of the rows of shards. Raises BatchError."""
    inference = Inference()
    for shard in shards:
        inference.see(row.value for row in reader.rows(shard) if row.value is not None)
    return inference.types()


def _empty_shards(files: Sequence[InputFile]) -> Iterator[Shard]:
    """No rows of each file that says its columns."""
    for number, file in enumerate(files):
        if has_types(file.format) and file.size:
            yield Shard(number=0, file=number, first=0, rows=0)


def _schema(plan: Plan, reader: Reader, shard: Shard) -> "pa.Schema":
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = plan.files[shard.file]
    if file.format == "parquet":  # the end of the file says it
        try:
            return pq.read_schema(file.path)
        except (OSError, pa.ArrowException) as error:
            raise BatchError(f"cannot read {file.path}: {error}") from error
    table = reader.table(shard)
    if table is None:
        raise BatchError(f"cannot read {file.path}: its columns have no types")
    return table.schema
