"""Texts to calibrate on and to evaluate with: a few that come out of a Python package, or the user's own files.

The packaged ones are excerpts of C4, Wikipedia and TinyStories that exllamav2 carries for the same purpose. Calibrating
on one and evaluating on another shows what a model does with text it was not fitted to.
"""

import re
from pathlib import Path
from typing import Any

from ..core.errors import ModelError, ModelNotFoundError
from ..core.jsonl import BadLineError, decode_line, read_lines
from . import cache, packages
from .packages import PackagedModel
from .progress import Progress, silent

_PACKAGE = "exllamav2==0.3.2"
_WHEEL_BYTES = 1_519_385
_SHA256 = {
    "c4": "baf09e746b3fa464c7cb20d4f206969657ce632283bf1d43b0b8d421ddb14505",
    "wiki": "d53fe0aeadf3355eb5d32b48bf8691575244c31caccae88ed46be8e1b40209c7",
    "tiny": "e9f4ad209f66bf742e4f75cfdcb9bdef27534f57771ad655cff3543b5a9497de",
}
KNOWN = {
    name: PackagedModel(
        name=name,
        requirement=_PACKAGE,
        suffix=f"standard_cal_data/{name}.utf8",
        sha256=sha256,
        wheel_bytes=_WHEEL_BYTES,
    )
    for name, sha256 in _SHA256.items()
}
_BETWEEN_DOCUMENTS = {"c4": r"\n", "wiki": r"</?doc[^>]*>", "tiny": r"<\|endoftext\|>"}
_SEPARATOR = "\n\n"


def read_text(name_or_path: str, progress: Progress = silent) -> str:
    """The text of one of KNOWN, or of a .txt or .jsonl file (see `_json_lines`); documents apart by an empty line.

    Raises ModelNotFoundError for what is not there, ModelError for what is not such a file.
    """
    if name_or_path in KNOWN:
        return _packaged(name_or_path, progress)
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        raise ModelNotFoundError(f"text {name_or_path!r} is not there; expected a file, or one of {', '.join(KNOWN)}")
    try:
        return _json_lines(path) if path.suffix.lower() == ".jsonl" else path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error


def fetch(name: str, progress: Progress = silent) -> Path:
    """The file of the text `name` in the cache, downloaded the first time.

    Raises ModelNotFoundError for a name that is not in KNOWN or cannot be downloaded.
    """
    if name not in KNOWN:
        raise ModelNotFoundError(f"no known text {name!r}; known: {', '.join(KNOWN)}")

    def make(directory: Path) -> None:
        packages.extract(KNOWN[name], directory, progress)

    return next(cache.make_once(f"text-{name}", make, progress).iterdir())


def _packaged(name: str, progress: Progress) -> str:
    raw = fetch(name, progress).read_text(encoding="utf-8")
    documents = (document.strip() for document in re.split(_BETWEEN_DOCUMENTS[name], raw))
    return _SEPARATOR.join(document for document in documents if document)


def _json_lines(path: Path) -> str:
    """The value of "text" or "prompt", or the contents of "messages", of every line. Raises ModelError, OSError."""
    return _SEPARATOR.join(_document(line, f"{path}, line {number}") for number, line in read_lines(path))


def _document(line: bytes | None, place: str) -> str:
    try:
        found = _text(decode_line(line))
    except BadLineError as error:
        raise ModelError(f"{place}: {error}") from error
    if found is None:
        raise ModelError(f'{place}: expected a string, or an object with "text", "prompt" or "messages"')
    return found


def _text(value: Any) -> str | None:
    if isinstance(value, dict) and "messages" in value:
        try:
            said = [message["content"] for message in value["messages"]]
        except (KeyError, TypeError):
            return None
        contents = [content for content in said if content is not None]  # None beside tool calls
        return _SEPARATOR.join(contents) if all(isinstance(content, str) for content in contents) else None
    found = value.get("text", value.get("prompt")) if isinstance(value, dict) else value
    return found if isinstance(found, str) else None
