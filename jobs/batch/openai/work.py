"""The work on one batch: from its input to its output and error files."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from ....core import files
from ....core.errors import BatchError, RunDirectoryError, SpecError
from ....core.rundir import RunDirectory
from ....router.batches.progress import entered
from ....router.batches.records import BatchRecord, BatchState, InputError, Status
from ....router.batches.store import INPUT, WORK, BatchStore
from ...serve.router_link import router_link
from ..driver.address import Address
from ..driver.driver import run_batch
from ..driver.options import BatchOptions
from ..outputs.export import OutputOptions
from ..parameters import Parameters
from ..report.tally import BatchState as Progress
from .delivery import Delivery, Unsettled
from .validation import Valid, validate

_LOOK_EVERY_S = 1.0
_REPORT_EVERY_S = 1.0
_EXPIRED = Unsettled(
    code="batch_expired", message="This request could not be executed before the completion window expired."
)
_CANCELLED = Unsettled(code="batch_cancelled", message="The batch was cancelled before this request was executed.")
_FAILED = Unsettled(code="batch_failed", message="The batch failed before this request was executed.")


class Work:
    """One batch, worked on by this process alone.

    Args:
        run: of the deployment.
        id: of the batch.
        told: set when this process is to end; the batch goes on later.
        share: the part that this batch has of what the endpoint computes.
        clock: Unix seconds.
    """

    def __init__(
        self,
        run: RunDirectory,
        id: str,
        told: threading.Event,
        share: Callable[[], float] = lambda: 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._run, self._id, self._told, self._share, self._clock = run, id, told, share, clock
        self._store = BatchStore(run, clock)
        record = self._store.request(id)
        if record is None:
            raise RunDirectoryError(f"there is no batch {id}")
        self._record: BatchRecord = record
        self._folder = self._store.folder(id)

    def validate(self) -> BatchState:
        """Look at the input, and say that the batch is in progress, or has failed. Raises RunDirectoryError."""
        if (ending := self._ending()) is not None:
            return self.finish(ending)
        try:
            found = validate(self._folder / INPUT, self._record.endpoint, self._models())
        except OSError as error:
            raise RunDirectoryError(f"cannot read the input of {self._id}: {error.strerror}") from error
        if isinstance(found, Valid):
            return self._enter(Status.IN_PROGRESS, total=found.total, model=found.model)
        state = self._enter(Status.FAILED, errors=found)
        self._store.clear(self._id)
        return state

    def do(self) -> BatchState:
        """Send what is not settled, then deliver. Where it was told to end before, the batch stays in progress.

        Raises BatchError, RunDirectoryError: then it may be tried again.
        """
        state = self._store.state(self._id)
        if state.status is Status.IN_PROGRESS and self._ending() is None:
            state = self._send(state)
        ending = self._ending()
        if ending is None and self._told.is_set() and state.status is Status.IN_PROGRESS:
            return state
        return self.finish(ending or Status.COMPLETED)

    def fail(self, reason: str) -> BatchState:
        """Deliver what is done of a batch that cannot go on. Raises BatchError, RunDirectoryError."""
        return self.finish(Status.FAILED, reason)

    def finish(self, status: Status, reason: str = "") -> BatchState:
        """Make the files of a batch, and end it with this status. Raises BatchError, RunDirectoryError."""
        state = self._store.state(self._id)
        if not state.has_ended:
            at, unsettled = self._last_step(status)
            made = Delivery(
                self._store,
                self._record,
                self._ledger,
                Parameters(model=state.model),
                at=at,
                unsettled=unsettled,
                clock=self._clock,
            ).make()
            errors = (InputError(code="batch_failed", message=reason[:2000]),) if reason else ()
            state = self._enter(
                status,
                total=made.completed + made.failed,
                completed=made.completed,
                failed=made.failed,
                prompt_tokens=made.prompt_tokens,
                cached_tokens=made.cached_tokens,
                completion_tokens=made.completion_tokens,
                reasoning_tokens=made.reasoning_tokens,
                output_file_id=made.output_file_id,
                error_file_id=made.error_file_id,
                errors=errors,
            )
        self._store.clear(self._id)
        return state

    def _last_step(self, status: Status) -> tuple[int, Unsettled]:
        """Say that the files are being made: since when, which stays the same, and what is told of open requests."""
        if status is Status.CANCELLED:
            state = self._enter(Status.CANCELLING)
            return state.cancelling_at or self._record.created_at, _CANCELLED
        if status is Status.EXPIRED:
            return self._record.expires_at, _EXPIRED
        state = self._enter(Status.FINALIZING)
        return state.finalizing_at or self._record.created_at, _FAILED

    def _ending(self) -> Status | None:
        """How the batch ends before all its requests are settled, if it does."""
        if self._store.is_cancelled(self._id):
            return Status.CANCELLED
        return Status.EXPIRED if self._clock() >= self._record.expires_at else None

    def _send(self, state: BatchState) -> BatchState:
        files.make_directory(self._folder / WORK)
        reports = _Reports(self._store, self._id, state)
        address = self._located()
        if address is None:
            return state
        try:
            summary = run_batch(self._options(state, address), reports.hear)
        finally:
            reports.close()
        state = self._store.state(self._id)
        is_done = summary.answered + summary.failed >= summary.total and summary.output is not None
        if not is_done and self._ending() is None and not self._told.is_set():
            raise BatchError("the driver has ended before all requests were settled")
        return state if not is_done else self._enter(Status.FINALIZING)

    def _options(self, state: BatchState, address: Address) -> BatchOptions:
        return BatchOptions(
            inputs=[str(self._folder / INPUT)],
            format="jsonl",
            output=OutputOptions(path=self._output),
            endpoint=address,
            key=self._run.key(),
            parameters=Parameters(model=state.model),
            patience_s=max(1.0, self._record.expires_at - self._clock()),
            locate=self._locate,
            waits_for_holes=True,
            on_behalf_of=self._record.tenant,
            share=self._share,
            stops=self._stops,
        )

    def _stops(self) -> bool:
        return self._told.is_set() or self._ending() is not None

    def _locate(self) -> Address | None:
        try:
            link = router_link(self._run, self._run.read_router())
        except RunDirectoryError:  # a filesystem in trouble: it is where it was
            return None
        return Address(link.url, link.tls) if link else None

    def _located(self) -> Address | None:
        """Where the router is; None where the batch stops before there is one."""
        while not self._stops():
            address = self._locate()
            if address is not None:
                return address
            self._told.wait(_LOOK_EVERY_S)
        return None

    def _models(self) -> set[str]:
        try:
            spec = self._run.read_spec()
        except SpecError as error:
            raise RunDirectoryError(str(error)) from error
        return {spec.model_of(pool).served_name for pool in spec.pool}

    @property
    def _output(self) -> Path:
        return self._folder / WORK / "output.jsonl"

    @property
    def _ledger(self) -> Path:
        return self._output.with_name(f"{self._output.name}.ledger")

    def _enter(self, status: Status, **changes: object) -> BatchState:
        return self._store.change(self._id, lambda state: entered(state, status, self._clock(), **changes))


class _Reports:
    """Writes how far a batch is, in a thread: a shared filesystem may stand still.

    Args:
        before: the state in which this process found the batch, with the tokens of those before.
    """

    def __init__(self, store: BatchStore, id: str, before: BatchState) -> None:
        self._store, self._id, self._before = store, id, before
        self._latest: Progress | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def hear(self, progress: Progress) -> None:
        """Take note of how far the batch is."""
        self._latest = progress

    def close(self) -> None:
        """Write the last one. It is no harm if that cannot be done."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(_REPORT_EVERY_S):
            self._write()
        self._write()

    def _write(self) -> None:
        progress, self._latest = self._latest, None
        if progress is None:
            return
        try:
            self._store.change(self._id, lambda state: counted(state, self._before, progress))
        except RunDirectoryError:
            return  # the end of the batch tells it again


def counted(state: BatchState, before: BatchState, progress: Progress) -> BatchState:
    """The state with what the driver has counted; tokens besides those that were counted `before`."""
    return msgspec.structs.replace(
        state,
        completed=max(state.completed, progress.answered),
        failed=progress.failed,
        prompt_tokens=before.prompt_tokens + progress.prompt_tokens,
        cached_tokens=before.cached_tokens + progress.cached_tokens,
        completion_tokens=before.completion_tokens + progress.completion_tokens,
    )
