"""Several workers of one job as the controller sees them: one worker, which does what all of them do."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import msgspec

from ...core.errors import RunDirectoryError
from ...core.records import EnergyRecord, WorkerRecord, WorkerState
from ...core.workers.ids import role_of

Records = Mapping[str, WorkerRecord | RunDirectoryError]  # by worker's id, and why one cannot be read


def records_by_role(records: Records) -> dict[str, WorkerRecord | RunDirectoryError]:
    """By the role of its job the record of each worker; of several that share a job, one made of theirs."""
    found: dict[str, WorkerRecord | RunDirectoryError] = {}
    several: defaultdict[str, list[WorkerRecord]] = defaultdict(list)
    for worker_id, record in records.items():
        role = role_of(worker_id)
        if role == worker_id:
            found[role] = record
        elif isinstance(record, WorkerRecord):
            several[role].append(record)
        else:
            found.setdefault(role, record)
    return found | {role: _together(role, ones) for role, ones in several.items()}


def live_by_role(live: Mapping[str, Mapping[str, Any]] | None) -> Mapping[str, Mapping[str, Any]] | None:
    """The same of the router's view of its workers, as far as the controller reads it; None where there is none."""
    if live is None:
        return None
    found = {worker_id: seen for worker_id, seen in live.items() if role_of(worker_id) == worker_id}
    several: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for worker_id, seen in live.items():
        several[role_of(worker_id)].append(seen)
    return found | {role: _seen_together(ones) for role, ones in several.items() if role not in found}


def _together(role: str, records: Sequence[WorkerRecord]) -> WorkerRecord:
    """Their capacities are added. It is silent if one of those that live is, and ready once all of them are."""
    epoch = max(record.epoch for record in records)
    ones = [record for record in records if record.epoch == epoch]
    living = [record for record in ones if record.state is not WorkerState.GONE] or ones
    energies = [record.energy for record in ones if record.energy is not None]
    loads = [record.load_s for record in ones if record.load_s is not None]
    return msgspec.structs.replace(
        living[0],
        id=role,
        state=_state([record.state for record in ones]),
        updated_at=min(record.updated_at for record in living),
        capacity=sum(record.capacity or 1 for record in living),
        load_s=max(loads, default=None),
        reason=next((record.reason for record in ones if record.reason), ""),
        energy=reduce(EnergyRecord.__add__, energies) if len(energies) == len(ones) else None,
        remark="; ".join(dict.fromkeys(record.remark for record in ones if record.remark)),
    )


def _state(states: Sequence[WorkerState]) -> WorkerState:
    """One that has gone while others serve is started again, or the job ends."""
    for state in (WorkerState.STARTING, WorkerState.READY, WorkerState.DRAINING):
        if state in states:
            return state
    return WorkerState.GONE


def _seen_together(ones: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """It is unhealthy if one that calls itself ready is."""
    ready = [one for one in ones if one.get("state") == WorkerState.READY]
    counts = [one.get("in_flight") for one in ones]
    return {
        "state": str(WorkerState.READY) if ready else ones[0].get("state"),
        "healthy": all(one.get("healthy") is not False for one in ready),
        "in_flight": sum(count for count in counts if isinstance(count, int)),
    }
