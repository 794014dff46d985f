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

    def take(self, number: int, mine: str, living: dict[str, bool]) -> bool:
        """Claim a shard that no living driver has. False: another one has it. Raises BatchError.

        Args:
            living: which drivers live, as far as it was asked already.
        """
        holder = self.holder(number)
        path = self._generation.claim(number)
        try:
            if holder is None:
                return files.claim(path, mine)
            if holder not in living:
                living[holder] = not self._signs.is_dead_by_id(holder)
            if living[holder] and holder != mine:
                return False
            files.write_atomic(path, mine)
        except RunDirectoryError as error:
            advice = "nothing is lost: mend that and start the same command again"
            raise BatchError(f"{error}; {advice}") from error
        return self.holder(number) == mine

    def give_back(self, number: int, mine: str) -> None:
        """Free a shard if it is still this driver's; if that fails, it is free when the driver has ended."""
        with suppress(BatchError, OSError):
            if self.holder(number) == mine:
                self._generation.claim(number).unlink(missing_ok=True)
