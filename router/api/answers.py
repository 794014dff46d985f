"""The router's own answers, in the shapes of OpenAI's API."""

from typing import Any

from aiohttp import web

from ...core.openai import WORKER_LOST, error_body
from ..fleet.worker import Worker

RETRY_AFTER_S = 5


def failure(status: int, message: str, *, param: str | None = None, code: str | None = None) -> web.Response:
    """An error answer in OpenAI's shape; those that pass say when to come back."""
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None
    return web.json_response(error_body(status, message, param=param, code=code), status=status, headers=headers)


def no_worker(counts: dict[str, int], model: str | None) -> web.Response:
    """Nobody to ask: says what there is, so that the reader knows whether waiting helps."""
    there_is = ", ".join(f"{count} {state}" for state, count in counts.items())
    wanted = f" for model '{model}'" if model else ""
    return failure(503, f"no worker is ready{wanted} (workers: {there_is})", code="no_worker_ready")


def workers_lost(reason: str) -> web.Response:
    """Workers were lost while they worked on this request: it would only take more of them if it were sent again."""
    message = f"two workers were lost while they worked on this request, and it gets no third; {reason}"
    answer = failure(502, message, code=WORKER_LOST)
    answer.headers["X-Should-Retry"] = "false"  # OpenAI's clients obey it
    return answer


def unknown_model(model: str, valid: list[str]) -> web.Response:
    """The 404 response for a model that no worker serves, with the names of those that are served."""
    message = f"no model '{model[:200]}' here; valid models: {', '.join(valid)}"
    return failure(404, message, param="model", code="model_not_found")


def model_card(name: str, workers: list[Worker]) -> dict[str, Any]:
    """One entry of `/v1/models`: what a worker says of its model, or what the router knows."""
    told = next((worker.card for worker in workers if worker.card is not None), {})
    created = min((int(worker.record.updated_at) for worker in workers), default=0)
    return {"object": "model", "created": created, "owned_by": "slurminfer"} | told | {"id": name}


def worker_view(worker: Worker) -> dict[str, Any]:
    """One entry of `/workers`."""
    return {
        "id": worker.id,
        "state": worker.standing,
        "url": worker.record.url,
        "in_flight": worker.in_flight,
        "capacity": worker.record.capacity,
        "model": worker.record.model,
        "healthy": worker.healthy,
        "reason": worker.reason,
    }
