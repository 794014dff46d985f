"""The metrics of the native engine: the one table of their names, and what renders them."""

from collections.abc import Iterator
from dataclasses import asdict

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from ..engine.stats import EngineStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "slurminfer_engine_"
_GAUGES = {
    "running_requests": "Sequences being computed",
    "waiting_requests": "Sequences waiting for room",
    "paused_requests": "Sequences that wait for a client to read",
    "kv_blocks_used": "KV blocks held by running sequences",
    "kv_blocks_total": "KV blocks in all",
    "kv_block_tokens": "Tokens that a KV block holds",
    "compiled_kernels": "1 where steps are computed by the compiled library",
}
_COUNTERS = {  # the client library appends _total
    "prefix_cache_hit_tokens": "Prompt tokens found in the prefix cache",
    "prompt_tokens": "Prompt tokens of sequences that began to generate, or whose embedding was made",
    "generation_tokens": "Tokens generated",
    "steps": "Steps that the model has computed",
    "step_seconds": "Seconds that they took, without sampling",
    "communication_seconds": "Seconds of steps that went to the other ranks, and to waiting for them",
    "preemptions": "Running sequences made to wait because KV blocks ran out",
    "failed_requests": "Sequences ended by an exception of their own",
    "speculative_draft_tokens": "Tokens guessed and checked",
    "speculative_accepted_tokens": "Guesses that were right",
}
_PROCESS = "process"
_PROCESS_HELP = "What the engine computes with"
_TTFT = "time_to_first_token_seconds"
_ITL = "inter_token_latency_seconds"
_TTFT_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60)
_ITL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics(Collector):
    """The metrics of one engine, in a registry of their own, so that several engines of one process do not mix."""

    def __init__(self) -> None:
        self.stats = EngineStats()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self.ttft = self._histogram(_TTFT, "From a request's arrival to its first token", _TTFT_BUCKETS)
        self.itl = self._histogram(_ITL, "Between two tokens of a sequence", _ITL_BUCKETS)

    def collect(self) -> Iterator[Metric]:
        """The metrics of `stats`, as prometheus_client asks for them."""
        values = asdict(self.stats)
        for name, help in _GAUGES.items():
            yield GaugeMetricFamily(_PREFIX + name, help, value=values[name])
        yield InfoMetricFamily(_PREFIX + _PROCESS, _PROCESS_HELP, value=dict(self.stats.process))
        for name, help in _COUNTERS.items():
            yield CounterMetricFamily(_PREFIX + name, help, value=values[name])

    def render(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(self._registry)

    def _histogram(self, name: str, help: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(_PREFIX + name, help, buckets=buckets, registry=self._registry)
