"""Opening the generation that counts: made where there is none, and made anew where input files have changed."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from ....core.errors import BatchError
from ..inputs.plan import InputFile, Plan
from .carry_over import Keys, carry_over
from .folder import read_plan, write_plan
from .layout import Generation
from .sealed import sync_folder


def open_generation(
    ledger: Path,
    driver: str,
    plan: Callable[[], Plan],
    *,
    now: Callable[[], Sequence[InputFile]] | None,
    keys: Keys | None,
    others: Callable[[], int],
) -> tuple[Generation, Plan]:
    """The generation that counts, and its plan.

    Args:
        ledger: the folder.
        driver: id of this one.
        plan: makes one of the input as it is now.
        now: the input's files; None: they are taken to be what they were.
        keys: of the rows of a plan.
        others: how many other drivers are at work.

    Raises BatchError.
    """
    try:
        before = Generation.all(ledger)
        if not before:
            return _make(ledger, 0, driver, plan())
        latest, kept = before[0], read_plan(before[0].plan)
        if now is None or same_files(kept.files, now()):
            return latest, kept
        if others():
            raise BatchError(
                f"{ledger}: the input has changed, and other drivers are still at work on what it was; "
                "wait for them or end them first"
            )
        fresh = plan()
        return _make(
            ledger, latest.number + 1, driver, fresh, lambda generation: carry_over(before, generation, fresh, keys)
        )
    except OSError as error:
        advice = "nothing is lost: mend that and start the same command again"
        raise BatchError(f"cannot write {ledger}: {error.strerror}; {advice}") from error


def _make(
    ledger: Path, number: int, driver: str, plan: Plan, fill: Callable[[Generation], None] | None = None
) -> tuple[Generation, Plan]:
    made, beside = Generation(ledger / str(number)), Generation(ledger / f".{number}.{driver}")
    try:
        beside.make()
        write_plan(beside.plan, plan)
        if fill is not None:
            fill(beside)
        for folder in (beside.segments, beside.sealed, beside.path):
            sync_folder(folder)
        os.rename(beside.path, made.path)
        sync_folder(ledger)
    except OSError:
        if not made.path.is_dir():  # else another driver has been quicker
            raise
    finally:
        shutil.rmtree(beside.path, ignore_errors=True)
    return made, read_plan(made.plan)


def same_files(before: Sequence[InputFile], now: Sequence[InputFile]) -> bool:
    """Whether files are what they were; rows are not counted again."""
    return [_fingerprint(file) for file in before] == [_fingerprint(file) for file in now]


def _fingerprint(file: InputFile) -> tuple[object, ...]:
    return file.path, file.format, file.compression, file.size, file.changed_ns
