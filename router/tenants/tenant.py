"""Who sends requests: what a key stands for."""

import enum

import msgspec


class Priority(enum.IntEnum):
    """Classes of requests, the most urgent first. A request may ask for a lower class than its key's, not a higher."""

    INTERACTIVE = 0
    DEFAULT = 1
    BATCH = 2


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the holder of a key. Sent to relays; the key itself is known by its SHA-256 only."""

    name: str
    slot: int  # column of the board
    digest: str  # SHA-256 of the key, hex
    priority: Priority = Priority.DEFAULT
    weight: float = 1.0  # its share, among tenants of a priority, of what there is
    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    account: str | None = None  # a Slurm account, for reports
    admin: bool = False  # the deployment's own key
    metrics_only: bool = False  # opens /metrics and nothing else


class Usage(msgspec.Struct, kw_only=True):
    """What a tenant has used: cumulative."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompt tokens, those that an engine found in its cache
    generated_tokens: int = 0
