"""The files of a batch's input: what its arguments name, in which format, and whether they are what they were."""

import glob
import json
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ....core.errors import BatchError
from .plan import InputFile

_FORMATS = ("jsonl", "text", "csv", "parquet", "arrow")
_SUFFIXES = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".txt": "text", ".csv": "csv", ".tsv": "csv",
    ".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow",
}  # fmt: skip
_NOT_IN_FOLDERS = (".json", ".txt")  # there they describe the data more often than they are it
_COMPRESSED = ("jsonl", "text", "csv")
_KNOWN = ".jsonl, .txt, .csv, .tsv (each also with .gz or .zst), .parquet, .arrow"


def find(inputs: Sequence[str], format: str | None = None) -> list[InputFile]:
    """The files that arguments name, in a stable order, with `rows` not yet counted (0).

    Args:
        inputs: each a file, a glob, or a directory: of Parquet, JSONL or CSV files, or a dataset as Hugging Face's
            `datasets` saves it (save_to_disk: Arrow files).
        format: that of all files, where their names do not say: jsonl, text, csv, parquet or arrow.

    Raises BatchError for what is not there or not readable, names no known format, or is a pipe or a device.
    """
    if format is not None and format not in _FORMATS:
        raise BatchError(f"format = {format!r}: expected one of {', '.join(_FORMATS)}")
    found: dict[Path, InputFile] = {}
    for place in (place for each in inputs for place in _places(each)):
        for path in _files(place, format):
            if path in found:
                raise BatchError(f"{path}: is named twice by the inputs; its rows would be sent twice")
            found[path] = _file(path, format)
    if not found:
        raise BatchError("no input: expected files, globs or directories")
    return list(found.values())


def has_changed(file: InputFile) -> bool:
    """Whether a file is another than when the plan was made, by its size and the time of its last change."""
    try:
        status = file.path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError as error:
        raise BatchError(f"cannot read {file.path}: {error.strerror}") from error
    return (status.st_size, status.st_mtime_ns) != (file.size, file.changed_ns)


def _places(argument: str) -> list[Path]:
    path = Path(os.path.abspath(argument))
    if os.path.lexists(path) or not glob.has_magic(argument):
        return [path]
    places = [Path(place) for place in sorted(glob.glob(str(path), recursive=True)) if not _is_ledger(Path(place))]
    if not places:
        _check_folder(path)
        raise BatchError(f"{argument}: no file has such a name")
    return places


def _is_ledger(place: Path) -> bool:
    """Whether it is what a batch keeps beside its output, which no glob means."""
    return place.suffix == ".ledger" and (place / "jobs").is_dir()


def _check_folder(pattern: Path) -> None:
    """Raise BatchError where a glob has found nothing because a folder before its first wildcard cannot be read."""
    folder = next(each for each in reversed(pattern.parents) if glob.has_magic(str(each)) or each == pattern.parent)
    if glob.has_magic(str(folder)):
        folder = folder.parent
    try:
        with os.scandir(folder):
            pass
    except OSError as error:
        raise BatchError(f"cannot read {folder}: {error.strerror}") from error


def _files(place: Path, format: str | None) -> list[Path]:
    try:
        if not place.is_dir():
            return [place]
        if (place / "dataset_dict.json").is_file():
            splits = sorted(each.parent.name for each in place.glob("*/state.json"))
            raise BatchError(
                f"{place}: has the splits {', '.join(splits)}: name one of them, such as {place / 'train'}"
            )
        if (place / "state.json").is_file():
            return list(_dataset(place))
        return _folder(place, format)
    except OSError as error:
        raise BatchError(f"cannot read {place}: {error.strerror}") from error


def _dataset(place: Path) -> Iterator[Path]:
    """The files of a dataset that was saved by `save_to_disk`."""
    try:
        state: Any = json.loads((place / "state.json").read_bytes())
        names = [each["filename"] for each in state["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise BatchError(f"{place / 'state.json'}: expected what `datasets` saves, with a list _data_files") from error
    if state.get("_indices_data_files"):
        raise BatchError(f"{place}: its rows are chosen by an index file; save it again after flatten_indices()")
    if not names:
        raise BatchError(f"{place}: a dataset without files")
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise BatchError(f"{place / 'state.json'}: _data_files: {name!r}: expected the name of a file beside it")
        yield place / name


def _folder(place: Path, format: str | None) -> list[Path]:
    names = sorted(each.name for each in place.iterdir() if each.name[0] not in "._" and not each.is_dir())
    paths = {place / name: _named_format(Path(name)) for name in names if _is_data(Path(name), format)}
    formats = {each for each in paths.values() if each is not None}
    if len(formats) > 1:
        raise BatchError(f"{place}: has files of several formats, {', '.join(sorted(formats))}: name one with a glob")
    if not paths:
        folders = sorted(each.name for each in place.iterdir() if each.is_dir() and each.name[0] not in "._")
        inside = f"; it has the directories {', '.join(folders[:10])}" if folders else ""
        raise BatchError(f"{place}: no {format or 'Parquet, JSONL or CSV'} files in this directory{inside}")
    return list(paths)


def _is_data(name: Path, format: str | None) -> bool:
    named = _named_format(name)
    if format is not None:
        return named == format
    return named is not None and _without_compression(name).suffix not in _NOT_IN_FOLDERS


def _file(path: Path, format: str | None) -> InputFile:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BatchError(f"{path} is a pipe or a device: expected a file, which can be read more than once")
        with path.open("rb") as file:
            beginning = file.read(4096)
    except FileNotFoundError as error:
        raise BatchError(f"{path}: no such file") from error
    except OSError as error:
        raise BatchError(f"cannot read {path}: {error.strerror}") from error
    found = format or _named_format(path)
    if found is None:
        raise BatchError(f"{path}: the name says no format: expected {_KNOWN}, or --format {'|'.join(_FORMATS)}")
    if path.suffix == ".json" and beginning.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        raise BatchError(f"{path}: is one JSON array: expected JSON Lines, an object on each line (jq -c '.[]')")
    compression = _compression(path)
    if compression is not None and found not in _COMPRESSED:
        raise BatchError(f"{path}: {found} is compressed inside; .{compression} is for {', '.join(_COMPRESSED)}")
    return InputFile(
        path=path, format=found, compression=compression, size=status.st_size, changed_ns=status.st_mtime_ns, rows=0
    )


def _compression(name: Path) -> str | None:
    return name.suffix[1:] if name.suffix in (".gz", ".zst") else None


def _without_compression(name: Path) -> Path:
    return name.with_suffix("") if _compression(name) else name


def _named_format(name: Path) -> str | None:
    return _SUFFIXES.get(_without_compression(name).suffix.lower())
