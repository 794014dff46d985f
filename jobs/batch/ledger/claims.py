"""Which driver has what of a ledger: a shard, or the right to open it.

What is claimed under NAME changes hands by files NAME.0, NAME.1 and so on. Each has the id of the driver that has it
from then on, or nothing where a driver has given it back; the one with the highest number counts. The next file is a
hard link, which can be made once only: so of several drivers that find the same driver dead, one has what it had.

The file with the highest number is never removed, so numbers do not come again: a driver that was stopped for long
after it had looked takes or gives back nothing that others have decided meanwhile. Files below it are removed by
whoever makes the next one.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

from ....core import files
from ....core.errors import BatchError, RunDirectoryError
from .signs import Signs

_CLAIM = re.compile(r"([0-9a-z]+)\.(0|[1-9]\d{0,17})", re.ASCII)
_NOBODY = ""


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
        if last is None:
            return self._follow(name, None, self._mine)
        holder = self._holder(name, last)
        if holder is None and max(self._listed().get(name, (-1,))) != last:
            return False  # others have gone on since the last look
        if holder and self._lives(holder):
            return False
        return self._follow(name, last, self._mine)

    def holder(self, name: str) -> str | None:
        """The id of the driver that has it, or had it when it died; None: nobody has it."""
        return self._latest(name)[1] or None

    def give_back(self, name: str) -> None:
        """Free it, if it is still this driver's. If that fails, it is free when the driver has ended."""
        with suppress(BatchError):
            last, holder = self._latest(name)
            if holder == self._mine:
                self._follow(name, last, _NOBODY)

    def clear(self, name: str) -> None:
        """Free it, whoever has it."""
        last, holder = self._latest(name)
        if last is not None and holder != _NOBODY:
            self._follow(name, last, _NOBODY)

    def _follow(self, name: str, last: int | None, text: str) -> bool:
        """Make the file that comes after number `last`. False: another driver has made it, or others after it."""
        number = 0 if last is None else last + 1
        try:
            if not files.claim(self._path(name, number), text):
                return False
        except RunDirectoryError as error:
            raise BatchError(f"{error}; nothing is lost: mend that and start the same command again") from error
        numbers = self._listed().get(name, [])
        highest = max(numbers, default=number)
        for old in numbers:
            if old < highest:
                with suppress(OSError):
                    self._path(name, old).unlink(missing_ok=True)
        self._last[name] = highest
        return highest == number

    def _lives(self, holder: str) -> bool:
        if holder not in self._living:
            self._living[holder] = not self._signs.is_mine(holder) and not self._signs.is_dead_by_id(holder)
        return self._living[holder]

    def _latest(self, name: str) -> tuple[int | None, str | None]:
        """The highest number now, None where there is none; and whose its file is, as `_holder` says it."""
        numbers = self._listed().get(name)
        if not numbers:
            return None, None
        last = max(numbers)
        return last, self._holder(name, last)

    def _holder(self, name: str, number: int) -> str | None:
        """Whose the file of a number is, or was; empty: nobody's. None where it is gone."""
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
