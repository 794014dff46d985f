"""Batch inputs in Arrow IPC: the streams that Hugging Face's `datasets` saves, and Arrow files."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..plan import InputFile
from .columns import ColumnSource
from .source import Index, Source, unreadable

if TYPE_CHECKING:
    import pyarrow as pa

_MAGIC = b"ARROW1"  # of files; streams have none


def scan(file: InputFile, on_bytes: Callable[[int], None]) -> Index:
    """Count rows; of each batch only the description is read."""
    import pyarrow as pa

    opened = ArrowFile(file)
    try:
        rows = sum(batch.num_rows for batch in opened.raw_batches())
        on_bytes(file.size)
        return Index(rows=rows, plain_bytes=file.size)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise unreadable(file, error) from error
    finally:
        opened.close()


def open_source(file: InputFile, columns: tuple[str, ...] | None) -> Source:
    """Open a file, mapped into memory."""
    return ColumnSource(file, ArrowFile(file), columns)


class ArrowFile:
    """An open Arrow stream or file. What is passed over costs nothing, since the file is mapped into memory."""

    def __init__(self, file: InputFile) -> None:
        import pyarrow as pa

        try:
            self._map = pa.memory_map(str(file.path))
            self._buffer: pa.Buffer = self._map.read_buffer()  # not read: mapped
            self._is_file = self._buffer[: len(_MAGIC)].to_pybytes() == _MAGIC
            self.schema: pa.Schema = self._reader().schema
        except (pa.ArrowException, OSError, ValueError) as error:
            raise unreadable(file, error) from error

    def start(self, first: int) -> int:
        """Always the first."""
        return 0

    def batches(self, first: int, columns: list[str] | None) -> "Iterator[pa.RecordBatch]":
        """All rows; each batch is checked, since nothing else keeps a damaged file from crashing the process."""
        for batch in self.raw_batches():
            chosen = batch if columns is None else batch.select(columns)
            _validate(chosen)
            yield chosen

    def raw_batches(self) -> "Iterator[pa.RecordBatch]":
        """All batches, not checked."""
        reader = self._reader()
        if self._is_file:
            yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
        else:
            yield from reader

    def close(self) -> None:
        """Close the file."""
        self._map.close()

    def _reader(self) -> Any:
        from pyarrow import ipc

        return ipc.open_file(self._buffer) if self._is_file else ipc.open_stream(self._buffer)


def _validate(batch: "pa.RecordBatch") -> None:
    """Raises ArrowInvalid, but not for text that is not UTF-8: that is one row's problem."""
    import pyarrow as pa

    for column in batch.columns:
        if pa.types.is_string(column.type):
            column = column.view(pa.binary())
        elif pa.types.is_large_string(column.type):
            column = column.view(pa.large_binary())
        column.validate(full=True)
