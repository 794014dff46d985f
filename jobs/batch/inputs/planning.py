"""Making the plan: counting rows, and cutting them into shards."""

from collections.abc import Callable, Sequence

from .plan import InputFile, Plan


def make_plan(files: Sequence[InputFile], on_progress: Callable[[int, int], None] | None = None) -> Plan:
    """Count the rows of all files and cut them into shards, in memory that does not grow with the input.

    A shard has at most 8,192 rows and 64 MiB of plain input (more of either where there would be more than 16,384
    shards), and 64 at least where the file has them: total / 64 between these bounds, so that several drivers find work.

    Args:
        files: as `find` gives them.
        on_progress: called now and then with bytes read and bytes of all files.

    Raises BatchError where a file cannot be read.
    """
    raise NotImplementedError
