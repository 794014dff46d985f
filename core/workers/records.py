"""The records of a deployment's workers, read again and again."""

import os
from collections.abc import Sequence

from ..errors import RunDirectoryError
from ..records import WorkerRecord
from ..rundir import RunDirectory, is_record

_Version = tuple[int, int, int, int]
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class WorkerRecords:
    """Reads the workers' records of a run directory; of files that have not changed, it knows what is in them.

    Every file is opened: NFS looks for a new version at every open, while its answer to stat may be a minute old.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._known: dict[str, tuple[_Version, WorkerRecord]] = {}  # by worker's id

    def look(self) -> dict[str, WorkerRecord | RunDirectoryError]:
        """By worker's id its record, or why there is none that can be read. A file that vanishes is left out.

        Raises RunDirectoryError where the folder is there and cannot be read.
        """
        try:
            names = os.listdir(self._run.workers_path)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise RunDirectoryError(f"cannot read {self._run.workers_path}: {error.strerror}") from error
        return self.look_at(sorted(name.removesuffix(".json") for name in names if is_record(name)))

    def look_at(self, worker_ids: Sequence[str]) -> dict[str, WorkerRecord | RunDirectoryError]:
        """The same of these workers, without listing the folder. Raises RunDirectoryError as `look` does."""
        try:
            folder = os.open(self._run.workers_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise RunDirectoryError(f"cannot read {self._run.workers_path}: {error.strerror}") from error
        try:
            looks = {worker_id: self._look_at(folder, worker_id) for worker_id in worker_ids}
        finally:
            os.close(folder)
        found = {worker_id: record for worker_id, record in looks.items() if record is not None}
        self._known = {worker_id: known for worker_id, known in self._known.items() if worker_id in found}
        return found

    def _look_at(self, folder: int, worker_id: str) -> WorkerRecord | RunDirectoryError | None:
        version = _version(folder, f"{worker_id}.json")
        known = self._known.get(worker_id)
        if known is not None and known[0] == version:
            return known[1]
        record = self._run.look_at_worker(worker_id)
        # If the file was replaced since, its version is another one at the next look.
        if version is not None and isinstance(record, WorkerRecord):
            self._known[worker_id] = version, record
        return record


def _version(folder: int, name: str) -> _Version | None:
    """What tells one version of a file from another, its owner and mode included; None where it cannot be opened."""
    try:
        descriptor = os.open(name, _FLAGS, dir_fd=folder)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
    except OSError:
        return None
    finally:
        os.close(descriptor)
