"""Making the plan: counting rows, and cutting them into shards."""

from collections.abc import Callable, Iterator, Sequence

import msgspec

from ....core.errors import BatchError
from .files import has_changed
from .formats.source import STEP, Index
from .formats.table import FORMATS
from .plan import InputFile, Plan, Shard

_MOST_SHARDS = 16_384
_MOST_ROWS = 8192
_MOST_BYTES = 64 * 1024 * 1024
_PARTS = 64  # that an input has at least, where its shards are not too small then
_MOST_PLACES = 1 << 20  # that are remembered while counting


def make_plan(files: Sequence[InputFile], on_progress: Callable[[int, int], None] | None = None) -> Plan:
    """Count the rows of all files and cut them into shards, in memory that does not grow with the input.

    A shard has at most 8,192 rows and 64 MiB of plain input (more of either where there would be more than 16,384
    shards), and 64 rows at least where the file has them: total / 64 between these bounds, so that several drivers find
    work.

    Args:
        files: as `find` gives them.
        on_progress: called now and then with bytes read and bytes of all files.

    Raises BatchError where a file cannot be read.
    """
    progress = _Progress(sum(file.size for file in files), on_progress)
    indexes: list[Index] = []
    for file in files:
        indexes.append(_scan(file, progress))
        _thin(indexes)
    counted = tuple(msgspec.structs.replace(file, rows=index.rows) for file, index in zip(files, indexes, strict=True))
    return Plan(files=counted, shards=tuple(cut(indexes)))


def cut(indexes: Sequence[Index]) -> list[Shard]:
    """The shards of files."""
    total = sum(index.rows for index in indexes)
    most_rows = min(_MOST_ROWS, max(STEP, -(-total // _PARTS)))
    most_bytes = _MOST_BYTES
    while True:
        shards = [Shard(number=0, **place) for place in _places(indexes, most_rows, most_bytes)]
        if len(shards) <= max(_MOST_SHARDS, 2 * len(indexes)):
            return [msgspec.structs.replace(shard, number=number) for number, shard in enumerate(shards)]
        most_rows, most_bytes = 2 * most_rows, 2 * most_bytes


def _places(indexes: Sequence[Index], most_rows: int, most_bytes: int) -> Iterator[dict[str, int]]:
    for number, index in enumerate(indexes):
        begin, end = 0, -(-index.rows // index.step)
        many = max(1, most_rows // index.step)
        while begin < end:
            next = min(begin + many, end)
            while next > begin + 1 and index.byte_of(next) - index.byte_of(begin) > most_bytes:
                next = begin + (next - begin + 1) // 2
            first = begin * index.step
            yield {
                "file": number,
                "first": first,
                "rows": min(next * index.step, index.rows) - first,
                "offset": 0 if index.offsets is None else index.offsets[begin],
            }
            begin = next


def _scan(file: InputFile, progress: "_Progress") -> Index:
    try:
        index = FORMATS[file.format].scan(file, progress.read)
    except OSError as error:
        raise BatchError(f"cannot read {file.path}: {error.strerror or error}") from error
    progress.end(file)
    if has_changed(file):
        raise BatchError(f"{file.path}: was changed while its rows were counted; start again when it is whole")
    return index


def _thin(indexes: Sequence[Index]) -> None:
    """Forget places where there are too many, most of those files that have most."""
    noted = [index for index in indexes if index.offsets is not None]
    while sum(len(index.offsets or ()) for index in noted) > _MOST_PLACES:
        largest = max(noted, key=lambda index: len(index.offsets or ()))
        if len(largest.offsets or ()) < 2:
            return
        largest.thin()


class _Progress:
    def __init__(self, total: int, tell: Callable[[int, int], None] | None) -> None:
        self._total, self._tell = total, tell
        self._ended = self._read = 0

    def read(self, size: int) -> None:
        """More of a file was read."""
        self._read += size
        self._say()

    def end(self, file: InputFile) -> None:
        """All of a file was read."""
        self._ended += file.size
        self._read = 0
        self._say()

    def _say(self) -> None:
        if self._tell is not None:
            self._tell(self._ended + self._read, self._total)
