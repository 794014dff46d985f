"""Which driver has what of a ledger: a shard, or the right to open it.

A claim is a file NAME.N with the id of a driver, and the one with the highest N counts. Nothing is written over: a dead
driver's NAME.N is followed by NAME.N+1, a hard link that is made once only. So of several drivers that find the same
driver dead, one has what it had.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

from ....core import files
from ....core.errors import BatchError, RunDirectoryError
from .signs import Signs

_CLAIM = re.compile(r"([0-9a-z]+)\.(\d+)", re.ASCII)


class Claims:
    """The claims in a folder, as one driver makes them. All methods raise BatchError, except `give_back`.

    Args:
        folder: where they are.
        signs: tell which drivers live.
        mine: id of this driver.
    """

    def __init__(self, folder: Path, signs: Signs, mine: str) -> None:
        self._folder, self._signs, self._mine = folder, signs, mine
        self._last: dict[str, int] = {}  # the highest number of each name
        self._living: dict[str, bool] = {}  # drivers by id

    def look(self) -> None:
        """See anew what is claimed, and who lives."""
        self._last = {name: max(numbers) for name, numbers in self._listed().items()}
        self._living.clear()

    def take(self, name: str) -> bool:
        """Claim what nobody has by the last look, or a driver that is dead. False: another one has it."""
        last = self._last.get(name)
        before = None if last is None else self._holder(name, last)
        if last is not None and (before is None or self._lives(before)):
            return False
        number = 0 if last is None else last + 1
        try:
            if not files.claim(self._path(name, number), self._mine):
                return False
        except RunDirectoryError as error:
            raise BatchError(f"{error}; nothing is lost: mend that and start the same command again") from error
        # Since the last look others may have claimed and given back, even under the same numbers.
        if max(self._listed()[name]) != number or (last is not None and self._holder(name, last) != before):
            self._path(name, number).unlink(missing_ok=True)
            return False
        self._last[name] = number
        return True

    def holder(self, name: str) -> str | None:
        """The id of the driver that has it, or had it when it died."""
        numbers = self._listed().get(name)
        return self._holder(name, max(numbers)) if numbers else None

    def give_back(self, name: str) -> None:
        """Free it, if it is still this driver's. If that fails, it is free when the driver has ended."""
        with suppress(BatchError, OSError):
            if self.holder(name) == self._mine:
                self.clear(name)

    def clear(self, name: str) -> None:
        """Free it, whoever has it."""
        try:
            for number in sorted(self._listed().get(name, ())):  # the claim that counts goes last
                self._path(name, number).unlink(missing_ok=True)
        except OSError as error:
            raise BatchError(f"cannot write {self._folder}: {error.strerror}") from error

    def _lives(self, holder: str) -> bool:
        if holder not in self._living:
            self._living[holder] = not self._signs.is_mine(holder) and not self._signs.is_dead_by_id(holder)
        return self._living[holder]

    def _holder(self, name: str, number: int) -> str | None:
        try:
            return files.read_text(self._path(name, number))
        except RunDirectoryError as error:
            raise BatchError(str(error)) from error

    def _listed(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        try:
            for entry in os.listdir(self._folder):
                if match := _CLAIM.fullmatch(entry):
                    found.setdefault(match[1], []).append(int(match[2]))
        except OSError as error:
            raise BatchError(f"cannot read {self._folder}: {error.strerror}") from error
        return found

    def _path(self, name: str, number: int) -> Path:
        return self._folder / f"{name}.{number}"
