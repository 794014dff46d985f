"""Error answers of the pages, in the shape of OpenAI's API."""

from aiohttp import web

from ...core.net.openai import error_body

RETRY_AFTER_S = 5


def failure(status: int, message: str, *, param: str | None = None, code: str | None = None) -> web.Response:
    """An error answer; those that pass say when to come back."""
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None
    return web.json_response(error_body(status, message, param=param, code=code), status=status, headers=headers)


def no_worker(counts: dict[str, int], reason: str = "") -> web.Response:
    """Nobody to ask: says what there is, so that the reader knows whether waiting helps."""
    there_is = ", ".join(f"{count} {state}" for state, count in counts.items())
    why = f": {reason}" if reason else ""
    return failure(503, f"no worker is ready{why} (workers: {there_is})", code="no_worker_ready")
