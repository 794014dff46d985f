"""`slurminfer batch export`: what is done by now, as an output of its own."""

from pathlib import Path

from ....core.errors import UsageError
from ...terminal.console import stdout
from ..batch import Batch
from ..inputs.files import find
from ..inputs.planning import make_plan
from ..inputs.reader import Reader
from ..ledger.ledger import Ledger
from ..outputs.export import Export
from ..report.words import plural
from ..submit.folder import JobsFolder


def export(output: Path, to: Path | None) -> None:
    """Write the rows of an output that are settled, in their order; its drivers may be at work meanwhile.

    Args:
        output: of the batch.
        to: file or folder to write; None: beside the output, with `.partial` before the ending of its name.

    Raises BatchError, UsageError for a place that is taken.
    """
    folder = JobsFolder(output)
    folder.require()
    batch, place = folder.read_latest(), to or partial_of(output)
    if place.absolute() == output.absolute():
        raise UsageError(f"TO = {str(place)!r}: expected another place than the output itself, which the batch writes")
    if to is not None and place.exists():
        raise UsageError(f"TO = {str(place)!r}: expected a name that nothing has yet")
    rows = _write(batch, place)
    stdout.print(f"{plural(rows, 'row')}: {place}")


def partial_of(output: Path) -> Path:
    """Where what is done by now is written, unless somebody says: `answers.partial.parquet`."""
    compression = output.suffix if output.suffix.lower() in (".gz", ".zst") else ""
    plain = output.with_name(output.name.removesuffix(compression))
    return output.with_name(f"{plain.stem}.partial{plain.suffix}{compression}")


def _write(batch: Batch, place: Path) -> int:
    with Ledger(
        batch.ledger, batch.parameters, lambda: make_plan(find(batch.inputs, batch.format)), retry_failed=False
    ) as ledger:
        reader = Reader(ledger.plan)
        try:
            return Export(ledger, reader, batch.output).snapshot(place)
        finally:
            reader.close()
