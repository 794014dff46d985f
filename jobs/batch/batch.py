"""A batch as its user has described it: all that the command line says, the endpoint's key apart."""

from pathlib import Path
from typing import Any

import msgspec

from ...core.errors import BatchError, UsageError
from .outputs.export import OutputOptions
from .parameters import Parameters


class EndpointChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The endpoint to use: exactly one of a spec to serve meanwhile, a running deployment, and a URL."""

    spec: str | None = None  # the text of a deployment spec
    run: str | None = None  # the name of a deployment
    url: str | None = None
    local: bool = False  # serve the spec with processes of this machine

    def __post_init__(self) -> None:
        given = [f"--{name}" for name, value in self._choices.items() if value is not None]
        if len(given) != 1:
            raise UsageError(f"expected one of --spec, --run and --endpoint; got {' and '.join(given) or 'none'}")
        if self.local and self.spec is None:
            raise UsageError(f"--local says how --spec is served; it means nothing with {given[0]}")

    @property
    def _choices(self) -> dict[str, str | None]:
        return {"spec": self.spec, "run": self.run, "endpoint": self.url}


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """One batch."""

    inputs: tuple[str, ...]  # files, globs and directories; absolute
    output: OutputOptions
    endpoint: EndpointChoice
    parameters: Parameters = Parameters()
    format: str | None = None  # of inputs whose names do not say
    limit: int | None = None  # the first so many rows only
    sample: int | None = None  # so many rows only, drawn from all
    concurrency: int | None = None  # requests in flight; None: fitted to the workers

    @property
    def ledger(self) -> Path:
        """The folder beside the output that keeps what is done."""
        return ledger_of(self.output.path)


def ledger_of(output: Path) -> Path:
    """The folder of an output's ledger: `OUTPUT.ledger`."""
    return output.absolute().with_name(f"{output.absolute().name}.ledger")


def encode_batch(batch: Batch) -> str:
    """The batch as JSON."""
    return msgspec.json.encode(batch, enc_hook=str).decode()


def decode_batch(path: Path, text: str) -> Batch:
    """The batch in a text that `path` has. Raises BatchError for what is none."""
    try:
        return msgspec.json.decode(text, type=Batch, dec_hook=_path)
    except (msgspec.MsgspecError, ValueError) as error:
        raise BatchError(f"{path} is not a batch: {error}") from error


def _path(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(f"no way to read a {kind.__name__}")
