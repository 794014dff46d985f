"""`slurminfer scale`: the number of workers that a user wants of a pool."""

import time

import msgspec

from ...core.errors import RunDirectoryError, UsageError
from ...core.records import MOST_PINNED
from ...core.rundir import RunDirectory

AUTO = "auto"


def scale(run: RunDirectory, pool: str, number: str) -> str:
    """Ask the controller for so many workers of a pool, or for what the spec says; words for the user.

    It also gives another try to a pool that the controller has given up.

    Args:
        run: of the deployment.
        pool: its name.
        number: of workers, or "auto".

    Raises UsageError for a pool or a number that cannot be, RunDirectoryError where the deployment was stopped.
    """
    if run.read_deployment() is None:
        raise RunDirectoryError(f"deployment '{run.path.name}' is stopped; 'slurminfer serve' starts it")
    spec = run.read_spec()
    names = [each.name for each in spec.pool]
    if pool not in names:
        raise UsageError(f"deployment '{run.path.name}' has no pool {pool!r}; pools: {', '.join(names)}")
    wanted = None if number == AUTO else _workers(number)
    record = run.read_scale()
    pinned = {name: count for name, count in record.pinned.items() if name != pool}
    if wanted is not None:
        pinned[pool] = wanted
    asked_at = {**record.asked_at, pool: time.time()}
    run.write_scale(msgspec.structs.replace(record, pinned=pinned, asked_at=asked_at))
    fewest, most = next(each.bounds for each in spec.pool if each.name == pool)
    by_spec = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    by_load = ", by the load" if wanted is None and fewest != most else ""
    number = by_spec if wanted is None else f"{wanted}"
    return f"pool '{pool}': {number} {'worker is' if number == '1' else 'workers are'} wanted{by_load}"


def _workers(number: str) -> int:
    if not number.isdecimal() or int(number) > MOST_PINNED:
        expected = f"expected 0 to {MOST_PINNED}, or '{AUTO}' for what the spec says"
        raise UsageError(f"number of workers {number!r}: {expected}")
    return int(number)
