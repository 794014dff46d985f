"""What a batch driver is asked to do, and how it ended."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ....core.errors import UsageError
from ..outputs.export import OutputOptions
from ..parameters import Parameters
from .address import Address, check_key, check_url

PATIENCE_S = 600.0  # without any answer, until a batch gives up
STOP_S = 30.0  # that rows in flight have when a batch is to stop


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """What a batch reads and writes, where it sends its requests, and how."""

    inputs: Sequence[str]  # files, globs and directories
    output: OutputOptions
    endpoint: Address
    parameters: Parameters = field(default_factory=Parameters)
    format: str | None = None  # of inputs whose names do not say
    key: str | None = None
    concurrency: int | None = None  # requests in flight; by default fitted to the endpoint
    limit: int | None = None  # only so many rows, the first ones
    sample: int | None = None  # only so many rows, drawn from all, the same ones each time
    patience_s: float = PATIENCE_S  # without any answer, until the batch gives up
    locate: Callable[[], Address | None] | None = None  # where the endpoint is now, asked again and again
    waits_for_holes: bool = False  # 503 and 429 never end the batch: workers come when the scheduler has room
    # At the end, for rows that other drivers are at work on; to take them over if need be.
    waits_for_others: bool = True
    on_behalf_of: str | None = None  # with the own key of a deployment: the tenant whose requests these are
    # Of what the endpoint computes at once, the part that is for this batch; asked again and again.
    share: Callable[[], float] | None = None
    # Asked every second: whether no more rows are to be sent. Those in flight have STOP_S to end.
    stops: Callable[[], bool] | None = None

    @property
    def ledger(self) -> Path:
        """The folder beside the output that keeps what is done."""
        path = self.output.path.absolute()
        return path.with_name(f"{path.name}.ledger")

    def check(self) -> None:
        """Raise UsageError for an endpoint, a key or a number that cannot be one."""
        check_url(self.endpoint.url)
        check_key(self.key)
        for name in ("concurrency", "limit", "sample"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} = {value}: expected at least 1")
        if self.limit is not None and self.sample is not None:
            raise UsageError(f"limit = {self.limit} and sample = {self.sample}: expected one of them")


@dataclass(frozen=True, kw_only=True)
class BatchSummary:
    """How a batch ended."""

    total: int  # rows of the input, or those of --limit or --sample; blank ones left out
    answered: int  # of which have an answer, earlier ones included
    skipped: int  # of which had it before
    failed: int  # of which have none, for the reasons in the output's column `error`
    prompt_tokens: int  # this time, by this driver
    cached_tokens: int
    completion_tokens: int
    elapsed_s: float
    output: Path | None  # None: not written, other drivers are at work on the rest
    others: int = 0  # drivers that are still at work
