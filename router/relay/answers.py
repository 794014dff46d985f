"""The relay's own answers, in the shapes of OpenAI's API."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from ...core.net.openai import UNKNOWN_PATH, WORKER_LOST, error_body
from ..control.messages import Outlook
from ..endpoints import no_such_path
from ..http.messages import Headers, Whole
from ..tenants.refusal import Refused

RETRY_AFTER_S = 5
JSON = (b"content-type", b"application/json")


def failure(
    status: int, message: str, *, param: str | None = None, code: str | None = None, retry_after: float = RETRY_AFTER_S
) -> Whole:
    """An error answer; those that pass by themselves (429, 503) say after how many seconds to come back."""
    headers: Headers = [JSON]
    if status in (429, 503):
        headers.append((b"retry-after", b"%d" % max(1, round(retry_after))))
    body = msgspec.json.encode(error_body(status, message, param=param, code=code))
    return Whole(status, body, headers)


def refused(refusal: Refused) -> Whole:
    """What a request is told that gets no place, or has used its tenant's quota up."""
    return failure(refusal.status, refusal.message, code=refusal.code, retry_after=refusal.retry_after)


def health(counts: Mapping[str, int], outlooks: Iterable[Outlook]) -> Whole:
    """For somebody without a key: only whether requests are answered."""
    if counts["ready"]:
        return Whole(200, b'{"status":"ok"}', [JSON])
    if any(outlook.may_sleep for outlook in outlooks):
        return Whole(200, b'{"status":"asleep"}', [JSON])
    return failure(503, "no worker is ready")


def no_worker(counts: Mapping[str, int], model: str | None, outlooks: Iterable[Outlook]) -> Whole:
    """Nobody to ask: says what there is and what may come, so that the reader knows whether waiting helps."""
    reasons = [outlook.reason for outlook in sorted(outlooks, key=lambda one: one.may_come is not True)]
    reason = next((f": {reason}" for reason in reasons if reason), "")
    there_is = ", ".join(f"{count} {state}" for state, count in counts.items())
    wanted = f" for model '{model[:200]}'" if model else ""
    return failure(503, f"no worker is ready{wanted}{reason} (workers: {there_is})", code="no_worker_ready")


def router_ended() -> Refused:
    """Why a client gets no answer, or no more of it, when the router ends."""
    message = "the job of the router has ended before this answer was complete; send the request again"
    return Refused(503, message, RETRY_AFTER_S, "router_ended")


def workers_lost(lost: int, reason: str) -> Whole:
    """Workers were lost while they worked on this request: it would only take more of them if it were sent again."""
    message = f"{lost} workers were lost while they worked on this request, and it gets no other one; {reason}"
    answer = failure(502, message, code=WORKER_LOST)
    answer.headers.append((b"x-should-retry", b"false"))  # OpenAI's clients obey it
    return answer


def unknown_model(model: str, valid: Iterable[str]) -> Whole:
    """The 404 answer for a model that no worker serves, with the names of those that are served."""
    message = f"no model '{model[:200]}' here; valid models: {', '.join(valid)}"
    return failure(404, message, param="model", code="model_not_found")


def unknown_path(method: bytes, path: str) -> Whole:
    """The 404 answer for a path that a worker does not know, whatever its own answer is."""
    return failure(404, no_such_path(method.decode("ascii", "replace"), path), code=UNKNOWN_PATH)


def is_json_object(body: bytes) -> bool:
    """Whether an answer is a JSON object."""
    try:
        return isinstance(msgspec.json.decode(body), dict)
    except (ValueError, RecursionError):
        return False


def is_error(body: bytes) -> bool:
    """Whether an answer is an error in OpenAI's or Anthropic's shape."""
    try:
        error = msgspec.json.decode(body, type=dict[str, Any]).get("error")
    except (ValueError, RecursionError):
        return False
    return isinstance(error, dict) and isinstance(error.get("message"), str)


def unknown_error(status: int, body: bytes, retry_after: bytes = b"") -> Whole:
    """What stands for a worker's error of another form, such as a web framework's `Internal Server Error`.

    `retry_after`: the worker's own header; empty where it has none.
    """
    text = _words(body)
    says = f": {text[:500]}" if text and not text.startswith("<") else ""
    answer = failure(status, f"the worker answered {status}{says}")
    if retry_after:
        answer.headers[:] = [JSON, (b"retry-after", retry_after)]
    return answer


def _words(body: bytes) -> str:
    """What an error says: by the names that FastAPI, vLLM and SGLang have for it, or as it is."""
    said: Any = None
    with suppress(ValueError, RecursionError):
        found = msgspec.json.decode(body, type=dict[str, Any])
        said = next((found[name] for name in ("message", "detail", "error") if found.get(name)), None)
    text = said if isinstance(said, str) else body[:2000].decode(errors="replace")
    return " ".join(text.replace("\0", " ").split())
