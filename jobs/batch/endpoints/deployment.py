"""A running deployment as a batch's endpoint."""

import time
from collections.abc import Callable
from typing import Any

from rich.text import Text

from ....core.errors import BatchError, RunDirectoryError
from ....core.rundir import RunDirectory
from ....slurm.ending import Endings
from ...serve.router_link import router_link
from ...serve.status.failed import require_not_failed
from ...serve.status.status import look
from ...terminal.console import stderr
from ...terminal.text import shown
from ..driver.address import Address
from ..driver.options import PATIENCE_S

_LOOK_EVERY_S = 2.0


def options_for(run: RunDirectory) -> dict[str, Any]:
    """The endpoint's part of the options of a batch through a deployment that runs.

    Raises EngineError where it has failed or is stopped, BatchError where it has no endpoint for long.
    """

    def locate() -> Address | None:
        """Where the router says that it listens now, and how it proves that it is ours."""
        try:
            link = router_link(run, run.read_router())
        except RunDirectoryError:  # a filesystem in trouble: it is where it was
            return None
        return Address(link.url, link.tls) if link else None

    return {
        "endpoint": _located(run, locate),
        "key": run.key(),
        "locate": locate,
        "waits_for_holes": any(pool.backfill for pool in run.read_spec().pool),
    }


def _located(run: RunDirectory, locate: Callable[[], Address | None]) -> Address:
    """Where the router is, waited for where it is away: starting, requeued, or moving to another node.

    Raises EngineError where the deployment has failed or is stopped, BatchError where it has no endpoint for
    PATIENCE_S.
    """
    endings, deadline, said = Endings(), time.monotonic() + PATIENCE_S, ""
    while (endpoint := locate()) is None:
        view = look(run, endings)
        require_not_failed(view)
        state = (
            f"deployment '{view.name}' has no endpoint now ({view.state}{f': {view.reason}' if view.reason else ''})"
        )
        if time.monotonic() > deadline:
            raise BatchError(f"{state}, and had none for {PATIENCE_S:g} s; see 'slurminfer status {view.name}'")
        if state != said:
            stderr.print(Text(shown(f"{state}; waiting for its router, for up to {PATIENCE_S:g} s")))
            said = state
        time.sleep(_LOOK_EVERY_S)
    return endpoint
