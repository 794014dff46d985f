"""/v1/batches: begin, list, look at and cancel a tenant's batches (OpenAI's API)."""

from typing import Any

import msgspec
from aiohttp import web

from ...core.background.threads import in_thread
from ...core.errors import DamagedFileError
from ..batches import limits
from ..batches.errors import NotAllowedError
from ..batches.records import BatchRecord, BatchState, InputError
from ..batches.store import BatchStore, shown_status
from .files import listing
from .stored import answered, integer, kept_s, tenant_of

_FIELDS = ("input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after")


class Batches:
    """The pages below /v1/batches."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_post("/v1/batches", answered(self.create))
        app.router.add_get("/v1/batches", answered(self.list), allow_head=False)
        app.router.add_get("/v1/batches/{batch_id}", answered(self.retrieve), allow_head=False)
        app.router.add_post("/v1/batches/{batch_id}/cancel", answered(self.cancel))

    async def create(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/batches."""
        asked, tenant = _asked(await request.read()), tenant_of(request)
        record = await in_thread(
            lambda: self._store.create(
                tenant,
                asked["endpoint"],
                asked["input_file_id"],
                _metadata(asked.get("metadata")),
                _output_kept_s(asked.get("output_expires_after")),
            )
        )
        return web.json_response(shown(record, BatchState(), None))

    async def list(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/batches: `after`, `limit`."""
        query, tenant = request.query, tenant_of(request)
        limit = integer("limit", query.get("limit"), 1, limits.MOST_BATCHES_LISTED, limits.BATCHES_LISTED)

        def look() -> dict[str, Any]:
            found, more = self._store.listed(tenant, limit, query.get("after"))
            return listing([shown for record in found if (shown := self._look_of_many(record))], more)

        return web.json_response(await in_thread(look))

    async def retrieve(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/batches/ID."""
        tenant, id = tenant_of(request), request.match_info["batch_id"]
        return web.json_response(await in_thread(lambda: self._look(self._store.get(tenant, id))))

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/batches/ID/cancel: it ends soon, with what is done by then. A second time it changes nothing."""
        tenant, id = tenant_of(request), request.match_info["batch_id"]

        def cancel() -> dict[str, Any]:
            record = self._store.get(tenant, id)
            self._store.cancel(record)
            return self._look(record)

        return web.json_response(await in_thread(cancel))

    def _look_of_many(self, record: BatchRecord) -> dict[str, Any] | None:
        """A batch of a list; None for one whose files are damaged, which must not hide the others."""
        try:
            return self._look(record)
        except DamagedFileError as error:
            self._store.complain(record.id, error)
            return None

    def _look(self, record: BatchRecord) -> dict[str, Any]:
        state = self._store.state(record.id)
        return shown(record, state, self._store.cancelling_at(record.id))


def shown(record: BatchRecord, state: BatchState, cancelling_at: int | None) -> dict[str, Any]:
    """A batch as OpenAI's API shows it."""
    return {
        "id": record.id,
        "object": "batch",
        "endpoint": record.endpoint,
        "model": state.model,
        "errors": _errors(state.errors),
        "input_file_id": record.input_file_id,
        "completion_window": limits.WINDOW,
        "status": shown_status(state, cancelling_at),
        "output_file_id": state.output_file_id,
        "error_file_id": state.error_file_id,
        "created_at": record.created_at,
        "in_progress_at": state.in_progress_at,
        "expires_at": record.expires_at,
        "finalizing_at": state.finalizing_at,
        "completed_at": state.completed_at,
        "failed_at": state.failed_at,
        "expired_at": state.expired_at,
        "cancelling_at": cancelling_at,
        "cancelled_at": state.cancelled_at,
        "request_counts": {"total": state.total, "completed": state.completed, "failed": state.failed},
        "usage": _usage(state),
        "metadata": record.metadata,
    }


def _errors(errors: tuple[InputError, ...]) -> dict[str, Any] | None:
    return {"object": "list", "data": msgspec.to_builtins(errors)} if errors else None


def _usage(state: BatchState) -> dict[str, Any]:
    return {
        "input_tokens": state.prompt_tokens,
        "input_tokens_details": {"cached_tokens": state.cached_tokens},
        "output_tokens": state.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": state.reasoning_tokens},
        "total_tokens": state.prompt_tokens + state.completion_tokens,
    }


def _asked(body: bytes) -> dict[str, Any]:
    """The fields of a new batch, of which those with one valid form are checked. Raises NotAllowedError."""
    try:
        asked = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise NotAllowedError(f"the body is no JSON object: {str(error)[:200]}") from error
    if unknown := sorted(set(asked) - set(_FIELDS)):
        expected = f"expected {', '.join(_FIELDS)}"
        raise NotAllowedError(f"unknown field {unknown[0][:100]!r}: {expected}", unknown[0][:100])
    if not isinstance(asked.get("input_file_id"), str):
        raise NotAllowedError("input_file_id: expected the id of a file", "input_file_id")
    _one_of("endpoint", asked.get("endpoint"), limits.ENDPOINTS)
    _one_of("completion_window", asked.get("completion_window"), (limits.WINDOW,))
    return asked


def _one_of(name: str, value: Any, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise NotAllowedError(f"{name} = {str(value)[:100]!r}: expected one of {', '.join(valid)}", name)


def _metadata(value: Any) -> dict[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise NotAllowedError("metadata: expected an object of strings", "metadata")
    if len(value) > limits.MOST_METADATA:
        raise NotAllowedError(f"metadata has {len(value)} pairs: expected at most {limits.MOST_METADATA}", "metadata")
    for key, text in value.items():
        if not isinstance(text, str):
            raise NotAllowedError(f"metadata[{key[:64]!r}]: expected a string", "metadata")
        if len(key) > limits.LONGEST_METADATA_KEY or len(text) > limits.LONGEST_METADATA_VALUE:
            expected = f"keys of {limits.LONGEST_METADATA_KEY} and values of {limits.LONGEST_METADATA_VALUE} characters"
            raise NotAllowedError(f"metadata[{key[:64]!r}] is too long: expected {expected} at most", "metadata")
    return value


def _output_kept_s(value: Any) -> int | None:
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) - {"anchor", "seconds"}:
        raise NotAllowedError("output_expires_after: expected {'anchor', 'seconds'}", "output_expires_after")
    return kept_s("output_expires_after", value.get("anchor"), value.get("seconds"))
