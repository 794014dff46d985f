"""What engines say of their load at `/metrics`: the one table of the three engines' names."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

# By engine, what it calls what. Each says some of it only.
_NAMES: dict[str, dict[str, str]] = {
    "native": {
        "slurminfer_engine_running_requests": "running",
        "slurminfer_engine_waiting_requests": "waiting",
        "slurminfer_engine_kv_blocks_used": "blocks_used",
        "slurminfer_engine_kv_blocks_total": "blocks",
        "slurminfer_engine_kv_block_tokens": "block_tokens",
        "slurminfer_engine_generation_tokens_total": "generated",
        "slurminfer_engine_prompt_tokens_total": "looked_up",
        "slurminfer_engine_prefix_cache_hit_tokens_total": "hits",
    },
    "sglang": {
        "sglang:num_running_reqs": "running",
        "sglang:num_queue_reqs": "waiting",
        "sglang:max_total_num_tokens": "cache_tokens",
        "sglang:token_usage": "cache_usage",
        "sglang:generation_tokens_total": "generated",
        "sglang:gen_throughput": "tokens_per_s",
        "sglang:cache_hit_rate": "hit_rate",
    },
    "vllm": {
        "vllm:num_requests_running": "running",
        "vllm:num_requests_waiting": "waiting",
        "vllm:kv_cache_usage_perc": "cache_usage",
        "vllm:generation_tokens_total": "generated",
        "vllm:prefix_cache_queries_total": "looked_up",
        "vllm:prefix_cache_hits_total": "hits",
        "vllm:cache_config_info": "cache_config",  # whose labels say how large the cache is
    },
}
_SHARES = frozenset({"cache_usage", "hit_rate"})  # of which the mean counts where several processes say them


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """One reading of an engine's metrics; None for what it does not say. Counters are since its start."""

    running: int | None = None  # requests that it computes
    waiting: int | None = None  # requests that wait in it
    cache_tokens: int | None = None  # that its KV cache holds
    cache_usage: float | None = None  # share of the KV cache that is in use
    generated: float | None = None  # tokens
    tokens_per_s: float | None = None  # generated since the reading before
    hit_rate: float | None = None  # share of prompt tokens that were in its cache, since the reading before


def parse_load(engine: str, text: str) -> tuple[EngineLoad, dict[str, float]]:
    """What an engine's `/metrics` says, and the values that the next reading is compared with.

    Raises ValueError for what is no such text.
    """
    values = _values(_NAMES.get(engine, {}), text)
    blocks, per_block = values.get("blocks"), values.get("block_tokens")
    cache_tokens = values.get("cache_tokens", blocks * per_block if blocks and per_block else None)
    usage = values.get("cache_usage", values["blocks_used"] / blocks if blocks and "blocks_used" in values else None)
    load = EngineLoad(
        running=_whole(values.get("running")),
        waiting=_whole(values.get("waiting")),
        cache_tokens=_whole(cache_tokens) or None,
        cache_usage=usage,
        generated=values.get("generated"),
        tokens_per_s=values.get("tokens_per_s"),
        hit_rate=values.get("hit_rate"),
    )
    return load, values


def with_rates(load: EngineLoad, now: Mapping[str, float], before: Mapping[str, float], seconds: float) -> EngineLoad:
    """The load, with what the values of two readings that lie `seconds` apart tell of the time between them."""
    generated = _rise("generated", now, before)
    if load.tokens_per_s is None and generated is not None and seconds > 0:
        load = replace(load, tokens_per_s=generated / seconds)
    hits, looked_up = _rise("hits", now, before), _rise("looked_up", now, before)
    if hits is not None and looked_up:
        load = replace(load, hit_rate=min(1.0, hits / looked_up))
    return load


def _rise(name: str, now: Mapping[str, float], before: Mapping[str, float]) -> float | None:
    if name not in now or name not in before or now[name] < before[name]:
        return None
    return now[name] - before[name]


def _values(names: Mapping[str, str], text: str) -> dict[str, float]:
    """The samples that are in the table, those of several processes (labels) added up."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for sample in _samples(names, text):
        field = names[sample.name]
        if field == "cache_config":
            found["blocks"].append(_number(sample.labels.get("num_gpu_blocks", "")))
            found["block_tokens"] = [_number(sample.labels.get("block_size", ""))]
        else:
            found[field].append(sample.value)
    return {field: sum(values) / (len(values) if field in _SHARES else 1) for field, values in found.items()}


def _samples(names: Mapping[str, str], text: str) -> Iterator[Sample]:
    # An engine's histograms are thousands of lines, which would take longer to parse than they are worth.
    lines = (line for line in text.splitlines() if line.startswith(tuple(names)))
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        yield from (sample for sample in family.samples if sample.name in names)


def _number(text: str) -> float:
    return float(text) if text.isdecimal() else 0.0


def _whole(value: float | None) -> int | None:
    """A count; none where that is no number of anything."""
    return int(value) if value is not None and 0 <= value < 2**53 else None
