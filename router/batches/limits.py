"""What OpenAI's API allows, in its own numbers, and what a deployment allows each tenant."""

from dataclasses import dataclass
from typing import Self

from ...core.spec.router import RouterSpec

MOST_FILE_BYTES = 512 * 2**20
MOST_INPUT_BYTES = 200 * 2**20  # of a batch
MOST_REQUESTS = 50_000  # of a batch
WINDOW, WINDOW_S = "24h", 24 * 3600
LEAST_KEPT_S, MOST_KEPT_S = 3_600, 2_592_000  # of a file, by `expires_after` and `output_expires_after`
KEPT_S = 30 * 24 * 3600  # of a file of purpose `batch` that does not say
MOST_METADATA, LONGEST_METADATA_KEY, LONGEST_METADATA_VALUE = 16, 64, 512
MOST_FILES_LISTED, MOST_BATCHES_LISTED, BATCHES_LISTED = 10_000, 100, 20
MOST_ERRORS = 100  # that a batch tells of its input
LONGEST_CUSTOM_ID = 512

MOST_BATCHES_KEPT = 10_000  # of a tenant; for more, those that ended and are the oldest are forgotten


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What one tenant may have, as `[router]` of the spec says it."""

    batches: int  # under way
    files: int
    bytes: int  # of all its files

    @classmethod
    def of(cls, spec: RouterSpec) -> Self:
        """What a spec says."""
        return cls(batches=spec.batches, files=spec.batch_files, bytes=spec.batch_storage * 2**30)


USUAL = Allowed.of(RouterSpec())

# Of the paths that the router forwards, those that take JSON and answer with JSON.
ENDPOINTS = tuple(
    f"/v1/{path}"
    for path in (
        *("chat/completions", "completions", "embeddings", "responses", "moderations", "images/generations"),
        *("messages", "rerank", "score"),
    )
)
