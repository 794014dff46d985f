"""The exception tree. Whatever a user can cause is a SlurminferError with a message that needs no traceback.

SlurminferError
├── UsageError              a command line that cannot mean anything
├── SpecError               a deployment spec: names the key, the value, what is valid
├── RunDirectoryError       the run directory cannot be read or written
│   ├── DamagedFileError    a file there was read, and is not what it should be
│   ├── RunNotFoundError
│   ├── RunActiveError      the name is taken by a living deployment
│   └── RunStoppedError     the deployment was stopped while its jobs were being submitted or waited for
├── ModelError              a model cannot be used
│   ├── ModelNotFoundError
│   ├── UnsupportedModelError
│   └── CorruptModelError
├── UntrustedFileError      a file that somebody else may have written is not loaded
├── PrivateFolderError      no folder on this machine that others cannot enter
├── StagingError            a node's own disk cannot be used
├── CommandError            a subprocess failed, timed out or is not installed
├── SlurmError              Slurm refused or cannot be reached
├── EngineError             an engine process did not start, or died
├── CommunicationError      the ranks of a program did not meet, or lost one another
├── RouterError             the router cannot start or be reached
├── TunnelError             there is no way to a deployment's router
└── BatchError              a batch cannot go on
"""


class SlurminferError(Exception):
    """Base of all errors that a user can cause; `str(error)` is the whole message."""


class UsageError(SlurminferError):
    """The command line asks for something that cannot be."""


class SpecError(SlurminferError):
    """A deployment spec is invalid.

    Args:
        key: dotted path of the key, such as `pool[0].workers`.
        value: the offending value, or None where a key is unknown or missing.
        expected: what would be valid.
    """

    def __init__(self, key: str, value: object, expected: str) -> None:
        self.key, self.value, self.expected = key, value, expected
        got = "" if value is None else f" = {value!r}"
        super().__init__(f"spec: {key}{got}: {expected}")


class RunDirectoryError(SlurminferError):
    """The run directory cannot be read or written."""


class DamagedFileError(RunDirectoryError):
    """A file of the run directory can be read, and is not what it should be, or not ours to believe."""


class RunNotFoundError(RunDirectoryError):
    """No deployment of that name."""


class RunActiveError(RunDirectoryError):
    """A living deployment has that name."""


class RunStoppedError(RunDirectoryError):
    """The deployment was stopped while its jobs were being submitted or waited for."""


class ModelError(SlurminferError):
    """A model cannot be used."""


class ModelNotFoundError(ModelError):
    """The model path leads nowhere."""


class UnsupportedModelError(ModelError):
    """The model is of a kind that this engine does not compute."""


class CorruptModelError(ModelError):
    """The model's files are damaged or incomplete."""


class UntrustedFileError(SlurminferError):
    """A file that somebody else may have written, and that is therefore not loaded."""


class PrivateFolderError(SlurminferError):
    """There is no folder on this machine that only this user can enter."""


class StagingError(SlurminferError):
    """A node's own disk cannot be used, or not for this: what was to be read from there is read from where it is."""


class CommandError(SlurminferError):
    """A subprocess failed. `stderr` holds the end of what it said."""

    def __init__(self, message: str, *, returncode: int | None = None, stderr: str = "") -> None:
        self.returncode, self.stderr = returncode, stderr
        super().__init__(message)


class SlurmError(SlurminferError):
    """Slurm refused a request or cannot be reached."""


class SubmissionUnclearError(SlurmError):
    """Slurm has not said whether it has taken a job: the job may be there, or appear later."""


class EngineError(SlurminferError):
    """An engine process did not start, or died."""


class CommunicationError(SlurminferError):
    """The ranks of a program did not meet, or lost one another."""


class RouterError(SlurminferError):
    """The router cannot start or be reached."""


class TunnelError(SlurminferError):
    """There is no way to a deployment's router."""


class BatchError(SlurminferError):
    """A batch cannot go on."""
