"""Whether the input of a batch is one: what OpenAI's API calls validating."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....core.jsonl import BadLineError, decode_line, read_lines
from ....router.batches import limits
from ....router.batches.records import InputError

_SHOWN = 100  # characters of a wrong value
_MOST_OBJECTS = 1_000_000  # and lists of a line, counted by their brackets: decoded, each may take 200 bytes


@dataclass(frozen=True)
class Valid:
    """What was found in an input that is one."""

    total: int  # requests
    model: str


def validate(path: Path, endpoint: str, models: Collection[str]) -> Valid | tuple[InputError, ...]:
    """Look through an input, line by line.

    Args:
        path: of the file, JSON Lines.
        endpoint: of the batch, such as /v1/chat/completions; all requests must name it.
        models: that are served.

    Returns what is there, or what is wrong, the first `limits.MOST_ERRORS` of it. Raises OSError.
    """
    size = path.stat().st_size
    if size > limits.MOST_INPUT_BYTES:
        expected = f"expected at most {limits.MOST_INPUT_BYTES // 2**20} MB"
        return (InputError(code="file_too_large", message=f"the file has {size} bytes: {expected}"),)
    check, errors = _Check(endpoint, models), []
    for error in check.errors(path):
        errors.append(error)
        if len(errors) >= limits.MOST_ERRORS:
            break
    if not errors and check.model is None:
        errors.append(InputError(code="empty_file", message="the file has no requests"))
    return tuple(errors) if errors else Valid(check.total, check.model or "")


class _Check:
    """One pass over an input."""

    def __init__(self, endpoint: str, models: Collection[str]) -> None:
        self._endpoint, self._models = endpoint, models
        self._seen: set[str] = set()
        self.total = 0
        self.model: str | None = None

    def errors(self, path: Path) -> Iterator[InputError]:
        """What is wrong, line by line."""
        for number, line in read_lines(path):
            self.total += 1
            if self.total > limits.MOST_REQUESTS:
                yield InputError(
                    code="too_many_requests",
                    message=f"the file has more requests than a batch may have: {limits.MOST_REQUESTS}",
                    line=number,
                )
                return
            try:
                _require_few_objects(line)
                self._check(decode_line(line))
            except BadLineError as error:
                yield InputError(code="invalid_json_line", message=f"this line is {error}", line=number)
            except _WrongError as error:
                yield InputError(code=error.code, message=str(error), param=error.param, line=number)

    def _check(self, value: Any) -> None:
        """Raise _WrongError for what is no request of this batch."""
        if not isinstance(value, dict):
            raise _WrongError("invalid_json_line", None, "expected a JSON object")
        self._check_id(value.get("custom_id"))
        if value.get("method") != "POST":
            raise _WrongError("invalid_method", "method", f"method = {_shown(value.get('method'))}: expected POST")
        if value.get("url") != self._endpoint:
            message = f"url = {_shown(value.get('url'))}: expected the batch's endpoint, {self._endpoint}"
            raise _WrongError("invalid_url", "url", message)
        if unknown := sorted(set(value) - {"custom_id", "method", "url", "body"}):
            message = f"unknown key {_shown(unknown[0])}: expected custom_id, method, url and body"
            raise _WrongError("unknown_parameter", unknown[0][:_SHOWN], message)
        body = value.get("body")
        if not isinstance(body, dict):
            raise _WrongError("invalid_body", "body", "body: expected a JSON object")
        if body.get("stream"):
            raise _WrongError("invalid_body", "body.stream", "body.stream: a batch has nobody to stream to")
        self._check_model(body.get("model"))

    def _check_id(self, id: Any) -> None:
        if not isinstance(id, str) or not 0 < len(id) <= limits.LONGEST_CUSTOM_ID:
            expected = f"expected a string of 1 to {limits.LONGEST_CUSTOM_ID} characters"
            raise _WrongError("invalid_custom_id", "custom_id", f"custom_id = {_shown(id)}: {expected}")
        if id in self._seen:
            raise _WrongError("duplicate_custom_id", "custom_id", f"custom_id {_shown(id)} has occurred before")
        self._seen.add(id)

    def _check_model(self, model: Any) -> None:
        if not isinstance(model, str) or not model:
            raise _WrongError("missing_model", "body.model", "body.model: expected the name of a model")
        if self.model is None:
            if model not in self._models:
                message = f"no model {_shown(model)} here; valid models: {', '.join(sorted(self._models))}"
                raise _WrongError("model_not_found", "body.model", message)
            self.model = model
        elif model != self.model:
            message = f"model {_shown(model)}: expected the model of the requests before, {_shown(self.model)}"
            raise _WrongError("mismatched_model", "body.model", message)


class _WrongError(Exception):
    def __init__(self, code: str, param: str | None, message: str) -> None:
        self.code, self.param = code, param
        super().__init__(message)


def _require_few_objects(line: bytes | None) -> None:
    """Raise _WrongError for a line that would take gigabytes of the router's job once it is decoded."""
    if line is not None and len(line) > _MOST_OBJECTS and line.count(b"{") + line.count(b"[") > _MOST_OBJECTS:
        expected = f"expected at most {_MOST_OBJECTS}"
        raise _WrongError("invalid_json_line", None, f"this line has too many objects and lists: {expected}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
