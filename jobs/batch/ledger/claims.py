"""Which driver has which shard."""

from contextlib import suppress

from ....core import files
from ....core.errors import BatchError, RunDirectoryError
from .layout import Generation
from .signs import Signs


class Claims:
    """The claims of a generation, as one driver makes them.

    Two drivers may take over a shard of a dead one at the same moment. That costs work and does no harm: the first one
    of them seals it.
    """

    def __init__(self, generation: Generation, signs: Signs) -> None:
        self._generation, self._signs = generation, signs

    def holder(self, number: int) -> str | None:
        """The id of the driver that has a shard or has sealed it. Raises BatchError."""
        try:
            return files.read_text(self._generation.claim(number))
        except RunDirectoryError as error:
            raise BatchError(str(error)) from error

    def take_free(self, number: int, mine: str) -> bool:
        """Claim a shard that nobody has. False: another driver was quicker. Raises BatchError."""
        try:
            return files.claim(self._generation.claim(number), mine)
        except RunDirectoryError as error:
            raise _failed(error) from error

    def take_over(self, number: int, mine: str) -> bool:
        """Claim a shard of a dead driver. False: another one was quicker. Raises BatchError."""
        try:
            files.write_atomic(self._generation.claim(number), mine)
        except RunDirectoryError as error:
            raise _failed(error) from error
        return self.holder(number) == mine

    def is_living(self, holder: str) -> bool:
        """Whether another driver with this id lives."""
        return not self._signs.is_mine(holder) and not self._signs.is_dead_by_id(holder)

    def give_back(self, number: int, mine: str) -> None:
        """Free a shard if it is still this driver's; if that fails, it is free when the driver has ended."""
        with suppress(BatchError, OSError):
            if self.holder(number) == mine:
                self._generation.claim(number).unlink(missing_ok=True)


def _failed(error: RunDirectoryError) -> BatchError:
    return BatchError(f"{error}; nothing is lost: mend that and start the same command again")
