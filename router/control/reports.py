"""What the relays report, together. A relay that has ended stays in the sums and in nothing else."""

from collections import Counter
from collections.abc import Callable

from ..tenants.tenant import Usage
from .counters import Counters
from .messages import Report


class Reports:
    """The last report of every relay, by its index."""

    def __init__(self) -> None:
        self._last: dict[int, Report] = {}
        self._ended = Counters()
        self._ended_usage: dict[str, Usage] = {}

    def hear(self, relay: int, report: Report) -> dict[int, int]:
        """Take a relay's report. By worker's slot: requests answered well since its last one."""
        before = self._last.get(relay)
        self._last[relay] = report
        if before is None:
            return dict(report.served)
        return {slot: count - before.served.get(slot, 0) for slot, count in report.served.items()}

    def ended(self, relay: int) -> None:
        """Note that the relay's process has ended, so that the next report of that index begins at nothing."""
        last = self._last.pop(relay, None)
        if last is not None:
            self._ended.add(last.counters)
            _add_usage(self._ended_usage, last.usage)

    def counters(self) -> Counters:
        """The sum of all relays that there are and were."""
        total = Counters()
        total.add(self._ended)
        for report in self._last.values():
            total.add(report.counters)
        return total

    def usage(self) -> dict[str, Usage]:
        """By tenant, what was used since this process began to count."""
        total: dict[str, Usage] = {}
        for usage in (self._ended_usage, *(report.usage for report in self._last.values())):
            _add_usage(total, usage)
        return total

    def queued(self) -> dict[str, int]:
        """By priority, the requests that wait now."""
        return self._sum(lambda report: report.queued)

    def connections(self) -> dict[str, int]:
        """By state, the connections of clients."""
        return self._sum(lambda report: report.connections)

    def rates(self) -> dict[int, tuple[float, float]]:
        """By worker's slot, prefill and decode tokens/s: the mean of the relays that have learned them."""
        found: dict[int, list[tuple[float, float]]] = {}
        for report in self._last.values():
            for slot, rates in report.rates.items():
                found.setdefault(slot, []).append(rates)
        return {
            slot: (sum(rate[0] for rate in rates) / len(rates), sum(rate[1] for rate in rates) / len(rates))
            for slot, rates in found.items()
        }

    def _sum(self, of: Callable[[Report], dict[str, int]]) -> dict[str, int]:
        total: Counter[str] = Counter()
        for report in self._last.values():
            total.update(of(report))
        return dict(total)


def _add_usage(total: dict[str, Usage], usage: dict[str, Usage]) -> None:
    for tenant, used in usage.items():
        sum_ = total.setdefault(tenant, Usage())
        for name in used.__struct_fields__:
            setattr(sum_, name, getattr(sum_, name) + getattr(used, name))
