"""Looking at the record of worker cpu-0."""

from slurminfer.core.records import WorkerRecord, WorkerState
from slurminfer.core.rundir import RunDirectory

from ...support.waiting import eventually


def record_when(run: RunDirectory, state: WorkerState) -> WorkerRecord:
    """The worker's record, once it is in `state`."""

    def look() -> WorkerRecord | None:
        record = run.read_worker("cpu-0")
        return record if record is not None and record.state is state else None

    record = eventually(look, f"cpu-0 is {state}")
    assert record is not None
    return record
