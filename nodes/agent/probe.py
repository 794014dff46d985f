"""Asking a running engine how it is, over HTTP through its Unix socket."""

from collections.abc import Sequence
from pathlib import Path

import httpx

_SHORT_S = 5.0
_FIRST_TOKEN_S = 120.0
_CANNOT_GENERATE = (400, 404, 405, 422, 501)  # what an engine answers that is for embeddings only


class EngineProbe:
    """One engine's HTTP side, as its agent sees it. Every answer that is not clearly good counts as bad."""

    def __init__(self, socket: Path, key: str, model: str, in_flight_metrics: Sequence[str]) -> None:
        self._model, self._in_flight_metrics = model, set(in_flight_metrics)
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)),
            base_url="http://engine",
            headers={"Authorization": f"Bearer {key}"},
            trust_env=False,
        )

    def answers_health(self) -> bool:
        """Whether `/health` says 200."""
        try:
            return self._client.get("/health", timeout=_SHORT_S).status_code == 200
        except httpx.HTTPError:
            return False

    def computes(self) -> bool:
        """Whether a real token comes out, or a vector of an engine for embeddings, which refuses to generate.

        The first may compile kernels, hence the long wait.
        """
        body = {"model": self._model, "prompt": "The", "max_tokens": 1, "temperature": 0}
        try:
            answer = self._client.post("/v1/completions", json=body, timeout=_FIRST_TOKEN_S)
            if answer.status_code in _CANNOT_GENERATE:
                return self._embeds()
            return answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] == 1
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return False

    def _embeds(self) -> bool:
        """Raises httpx.HTTPError, ValueError, KeyError, TypeError for an answer of another form."""
        body = {"model": self._model, "input": "The"}
        answer = self._client.post("/v1/embeddings", json=body, timeout=_FIRST_TOKEN_S)
        return answer.status_code == 200 and bool(answer.json()["data"])

    def in_flight(self) -> int | None:
        """Requests that the engine runs or queues; None if it does not say."""
        from prometheus_client.parser import text_string_to_metric_families  # asked for when a worker drains

        try:
            text = self._client.get("/metrics", timeout=_SHORT_S).text
            samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
        except (httpx.HTTPError, ValueError):
            return None
        found = [sample.value for sample in samples if sample.name in self._in_flight_metrics]
        return int(sum(found)) if found else None

    def close(self) -> None:
        """Close the connections to the engine."""
        self._client.close()
