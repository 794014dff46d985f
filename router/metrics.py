"""What `/metrics` tells (Prometheus). All names stand in this file, each with what it says and its labels."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from .api.pools import pools
from .api.sources import Sources
from .control.counters import Counters, Histogram, Latency
from .fleet.worker import Worker
from .policies.policy import REASONS
from .responses.lineage import Amount
from .tenants.tenant import Priority, Usage

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "slurminfer_router_"

# By field of Counters. Prometheus' client library adds _total to the names of counters.
COUNTED: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "requests": ("requests", "Requests answered, by endpoint and HTTP status", ("path", "status")),
    "duration": ("request_seconds", "Time from a request's head to its answer's last byte", ("path",)),
    "ttft": ("first_byte_seconds", "Time until a worker's first byte of body has come", ("path",)),
    "itl": ("inter_token_seconds", "Time between two pieces of a stream", ()),
    "queue_time": ("queue_seconds", "Time that requests waited in the router", ("priority",)),
    "choices": ("choices", "Workers chosen, by the policy's reason", ("reason",)),
    "prompt_tokens": ("prompt_tokens", "Tokens of prompts, as engines report them", ()),
    "generated_tokens": ("generated_tokens", "Tokens generated, as engines report them", ()),
    "cached_tokens": ("cached_tokens", "Tokens of prompts that engines found in their caches", ()),
    "expected_cached_tokens": ("expected_cached_tokens", "The same, as the policy had estimated it", ()),
    "retries": ("retries", "Requests sent to another worker before the first byte", ()),
    "failovers": ("failovers", "Answers that another worker was to go on with", ("outcome", "kind")),
    "hedges": ("hedges", "Second attempts for a first token that was late", ("outcome",)),
    "upstream_errors": ("upstream_errors", "Workers lost during a request", ("worker", "kind")),
    "refused": ("refused", "Requests refused by the router itself", ("reason",)),
    "preempted": ("preempted", "Batch requests that gave way before their first byte", ()),
    "moved": ("moved", "Requests of draining workers that others went on with", ()),
    "worker_requests": ("worker_requests", "Requests that a worker has answered", ("worker",)),
    "worker_tokens": ("worker_generated_tokens", "Tokens that a worker has generated", ("worker",)),
    "responses_kept": ("responses_kept", "Responses of /v1/responses that were kept", ()),
    "responses_kept_bytes": ("responses_kept_bytes", "Bytes of them, each without the turns before it", ()),
    "responses_not_kept": ("responses_not_kept", "Responses that were answered and not kept", ("reason",)),
    "responses_removed": ("responses_removed", "Kept responses that were removed", ("reason",)),
    "failed_rounds": ("internal_errors", "Errors of the router itself, which its log has; the task went on", ("task",)),
}

# By worker; what has no value at the moment is left out.
WORKER_GAUGES: dict[str, tuple[str, Callable[[Worker], float | None]]] = {
    "worker_capacity": ("Requests that a worker computes at once", lambda worker: worker.capacity),
    "worker_healthy": ("Whether a worker is trusted with requests", lambda worker: worker.healthy),
    "worker_seconds_left": ("Seconds until a worker's walltime limit", lambda worker: _left(worker.ends_at)),
    "worker_running": ("Requests that the engine says it computes", lambda worker: worker.load.running),
    "worker_waiting": ("Requests that the engine says wait in it", lambda worker: worker.load.waiting),
    "worker_tokens_per_second": ("Tokens/s that the engine generates", lambda worker: worker.load.tokens_per_s),
    "worker_cache_tokens": ("Tokens that the engine's KV cache holds", lambda worker: worker.load.cache_tokens),
    "worker_cache_usage": ("Share of the KV cache in use", lambda worker: worker.load.cache_usage),
    "worker_cache_hit_rate": ("Share of prompt tokens found in the cache", lambda worker: worker.load.hit_rate),
}
IN_FLIGHT = "worker_in_flight", "Requests in flight at a worker, of all relays", ("worker",)
STATE = "worker_state", "1 for the state that a worker is in", ("worker", "state")
EJECTIONS = "worker_ejections", "Times that a worker lost its requests until it had produced a token", ("worker",)
CONNECTIONS = "connections", "Open connections of clients; a stranger has not shown a key yet", ("state",)
KEPT = "kept_responses", "Responses on disk, as the router saw them at its last sweep", ()
KEPT_BYTES = "kept_responses_bytes", "Bytes of them", ()
QUEUED = "queued", "Requests that wait in the router", ("priority",)
# By field of PoolStatus; what has no value at the moment is left out.
POOL_GAUGES: dict[str, tuple[str, str]] = {
    "wanted": ("pool_wanted_workers", "Workers that the controller of the fleet wants"),
    "present": ("pool_present_workers", "Workers that have a job, whether it waits or runs"),
    "ready": ("pool_ready_workers", "Workers that may get requests"),
    "gave_up": ("pool_gave_up", "1 where no worker is started until a user changes something"),
}
# By field of Usage.
TENANT_COUNTED: dict[str, tuple[str, str]] = {
    "requests": ("tenant_requests", "Requests of a tenant"),
    "prompt_tokens": ("tenant_prompt_tokens", "Tokens of a tenant's prompts"),
    "cached_tokens": ("tenant_cached_tokens", "Those of them that an engine found in its cache"),
    "generated_tokens": ("tenant_generated_tokens", "Tokens generated for a tenant"),
}

# Labels that are known before anything was counted: they are 0 from the start, as rate() and alerts see no increase
# where a series begins (prometheus.io, "Instrumentation", "Avoid missing metrics"). By field of Counters.
EXPECTED: dict[str, tuple[Any, ...]] = {
    "choices": REASONS,
    "failovers": tuple((outcome, "stream") for outcome in ("tried", "succeeded", "failed")),
    "hedges": ("sent", "won"),
    "responses_not_kept": ("busy", "failed", "no_space", "off", "slow", "too_large"),
    "responses_removed": ("deleted", "expired", "limit"),
    "refused": ("insufficient_quota", "key", "queue_full", "queue_timeout", "rate_limit_exceeded", "router_ended"),
}
_KINDS_OF_LOSS = ("body", "connect", "error", "garbage", "lost", "stream")  # of upstream_errors, for each worker


class Metrics(Collector):
    """All metrics, as they are when asked for, so that a worker that is gone leaves no stale figure behind."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)

    def describe(self) -> Iterator[Metric]:
        """Nothing: names are not checked against those of other collectors, of which there are none."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Every metric."""
        counters = _expected(worker.id for worker in self._sources.registry.all())
        counters.add(self._sources.reports.counters())
        counters.add(self._sources.pages)
        yield from _counted(counters)
        yield from self._of_workers()
        yield _family(GaugeMetricFamily, CONNECTIONS, self._sources.reports.connections())
        yield _family(GaugeMetricFamily, QUEUED, self._sources.reports.queued())
        yield from self._of_kept_responses()
        yield from self._of_pools()
        yield from self._of_tenants()

    def _of_workers(self) -> Iterator[Metric]:
        workers = self._sources.registry.all()
        for name, (text, value_of) in WORKER_GAUGES.items():
            values = {worker.id: value for worker in workers if (value := value_of(worker)) is not None}
            yield _family(GaugeMetricFamily, (name, text, ("worker",)), values)
        in_flight = {worker.id: self._sources.in_flight(worker.slot) for worker in workers}
        yield _family(GaugeMetricFamily, IN_FLIGHT, in_flight)
        yield _family(GaugeMetricFamily, STATE, {(worker.id, worker.record.state.value): 1 for worker in workers})
        yield _family(CounterMetricFamily, EJECTIONS, {worker.id: worker.ejections for worker in workers})

    def _of_kept_responses(self) -> Iterator[Metric]:
        store = self._sources.responses
        held = Amount(0, 0) if store is None else store.held
        yield _family(GaugeMetricFamily, KEPT, {(): held.responses})
        yield _family(GaugeMetricFamily, KEPT_BYTES, {(): held.bytes})

    def _of_pools(self) -> Iterator[Metric]:
        found = pools(self._sources)
        for field, (name, text) in POOL_GAUGES.items():
            values = {pool.name: float(value) for pool in found if (value := getattr(pool, field)) is not None}
            yield _family(GaugeMetricFamily, (name, text, ("pool",)), values)

    def _of_tenants(self) -> Iterator[Metric]:
        usage = {tenant.name: Usage() for tenant in self._sources.tenants() if not tenant.metrics_only}
        usage.update(self._sources.usage())
        for field, (name, text) in TENANT_COUNTED.items():
            values = {tenant: getattr(used, field) for tenant, used in usage.items()}
            yield _family(CounterMetricFamily, (name, text, ("tenant",)), values)


def _expected(workers: Iterable[str]) -> Counters:
    """What stands at 0 until something is counted. `workers`: their ids."""
    counters = Counters(queue_time={priority.name.lower(): Latency() for priority in Priority})
    for field, labels in EXPECTED.items():
        getattr(counters, field).update(dict.fromkeys(labels, 0))
    for worker in workers:
        counters.worker_requests[worker] = counters.worker_tokens[worker] = 0
        counters.upstream_errors.update({(worker, kind): 0 for kind in _KINDS_OF_LOSS})
    return counters


def _counted(counters: Counters) -> Iterator[Metric]:
    for field, (name, text, labels) in COUNTED.items():
        value = getattr(counters, field)
        table = value if isinstance(value, dict) else {(): value}
        if field in _HISTOGRAMS:
            yield _histograms((name, text, labels), table)
        else:
            yield _family(CounterMetricFamily, (name, text, labels), table)


_HISTOGRAMS = frozenset({"duration", "ttft", "itl", "queue_time"})


def _family(kind: Any, described: tuple[str, str, tuple[str, ...]], values: Mapping[Any, float]) -> Metric:
    """A counter or gauge with a value for each of the labels' values, which are a string or a tuple."""
    name, text, labels = described
    family: Metric = kind(_PREFIX + name, text, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(_labels(key), value)  # type: ignore[attr-defined]
    return family


def _histograms(described: tuple[str, str, tuple[str, ...]], values: Mapping[Any, Histogram]) -> Metric:
    name, text, labels = described
    family = HistogramMetricFamily(_PREFIX + name, text, labels=labels)
    for key, histogram in sorted(values.items(), key=lambda item: _labels(item[0])):
        total, buckets = 0, []
        for bound, count in zip((*map(str, histogram.bounds), "+Inf"), histogram.counts, strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric(_labels(key), buckets, histogram.sum)
    return family


def _labels(key: object) -> list[str]:
    return [str(part) for part in key] if isinstance(key, tuple) else [str(key)]


def _left(ends_at: float | None) -> float | None:
    return None if ends_at is None else max(0.0, ends_at - time.time())
