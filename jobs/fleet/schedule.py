"""What the scheduler says of jobs that are still to come: how long they may be, and when they would start."""

from collections.abc import Mapping

import msgspec

from ...core.spec.deployment import DeploymentSpec
from .allowed import Allowed
from .calendar import Calendar
from .forecasts import Forecaster
from .rules.desired import Desired
from .rules.observed import Observed


class Schedule:
    """Limits, reservations and forecasts of Slurm, each asked for as seldom as it changes."""

    def __init__(self, allowed: Allowed, calendar: Calendar, forecaster: Forecaster) -> None:
        self._allowed, self._calendar, self._forecaster = allowed, calendar, forecaster

    def longest_s(self, spec: DeploymentSpec, now: float) -> Mapping[str, float]:
        """By pool, the longest walltime limit in seconds that is allowed, where it matters and is known."""
        return self._allowed.longest_s(spec, now)

    def complete(self, spec: DeploymentSpec, desired: Desired, observed: Observed, now: float) -> Observed:
        """The look at Unix time `now` with reservations and forecasts."""
        seen = msgspec.structs.replace(observed, reserved=self._calendar.reserved(spec, now))
        return msgspec.structs.replace(seen, forecasts=self._forecaster.forecasts(spec, desired, seen, now))
