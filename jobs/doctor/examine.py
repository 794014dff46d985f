"""Look at a site: this machine, what Slurm says, and one job in each partition."""

import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ...core.errors import SlurmError, UsageError
from ...core.files import make_directory, write_atomic
from ...core.paths import home, jobs_root, make_home
from ...core.site.doctor import PartitionProfile, SiteProfile
from ...core.site.machine import Machine
from ...nodes.doctor.look import look
from ...nodes.doctor.meeting import SECRET
from ...slurm.limits import Partition, partitions, qos_names
from ...slurm.site import NodeKinds, cluster, node_kinds
from ...slurm.submit import SlurmLauncher
from .requests import CPUS, Plan, asks, choose, request
from .visit import Visit
from .watch import Round

_OF_THE_JOB = (
    "seen_at",
    "job",
    "gpu_option",
    "asked_cpus",
    "asked_gpus",
    "asked_memory",
    "waited_s",
    "reports",
    "routes",
)
_NO_KINDS = NodeKinds(nodes=0, cpus=0, memory=0)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the command line says."""

    partitions: tuple[str, ...] = ()  # empty: all
    account: str | None = None
    patience_s: float = 120.0


def examine_here(why: str) -> SiteProfile:
    """What can be learned without jobs: this machine. `why` there are none is kept with what was skipped."""
    skipped = (f"Slurm, its partitions and its nodes ({why})",)
    return SiteProfile(date=time.time(), home=str(home()), here=look(), skipped=skipped)


def examine(wish: Wish, tell: Callable[[str], None]) -> SiteProfile:
    """Look at the whole site. `tell` gets lines on what goes on.

    Raises UsageError for a partition that is not there, SlurmError where Slurm does not answer.
    """
    known, kinds = partitions(), node_kinds()
    wanted = _wanted(wish.partitions, known)
    settings = cluster(tuple(qos_names()))
    tell("looking at this machine")
    here = look()
    folder = jobs_root() / f"doctor-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    make_home()
    found = _Examination(wish, here, folder, tell).of([known[name] for name in wanted], kinds)
    return SiteProfile(date=time.time(), home=str(home()), here=here, cluster=settings, partitions=found)


def merged(new: SiteProfile, old: SiteProfile | None) -> SiteProfile:
    """The new profile, with what an earlier one knows of the same cluster and the new one has not looked at."""
    if old is None or old.cluster is None:
        return new
    if new.cluster is None:
        return msgspec.structs.replace(new, cluster=old.cluster, partitions=old.partitions)
    if old.cluster.name != new.cluster.name:
        return new
    before = {one.name: one for one in old.partitions}
    known = {**before, **{one.name: _with_earlier(one, before.get(one.name)) for one in new.partitions}}
    return msgspec.structs.replace(new, partitions=tuple(known[name] for name in sorted(known)))


def _with_earlier(new: PartitionProfile, old: PartitionProfile | None) -> PartitionProfile:
    """What an earlier job has seen, where the latest one has seen nothing."""
    if new.seen_at is not None or old is None or old.seen_at is None:
        return new
    return msgspec.structs.replace(new, **{name: getattr(old, name) for name in _OF_THE_JOB})


class _Examination:
    """The jobs of one command."""

    def __init__(self, wish: Wish, here: Machine, folder: Path, tell: Callable[[str], None]) -> None:
        self._wish, self._here, self._folder, self._tell = wish, here, folder, tell
        self._launcher = SlurmLauncher()
        self._visits: list[Visit] = []
        self._said: list[str] = []  # what was last told of those that wait

    def of(self, wanted: Sequence[Partition], kinds: Mapping[str, NodeKinds]) -> tuple[PartitionProfile, ...]:
        """The partitions' profiles. No job outlives this."""
        make_directory(self._folder)
        plans = {one.name: self._plan(one, kinds.get(one.name, _NO_KINDS)) for one in wanted}
        try:
            self._submit(plans)
            here = self._here.network
            Round(self._launcher, here, self._wish.patience_s, on_look=self._show).wait(self._visits)
        except BaseException:
            with suppress(SlurmError):  # what has stopped this is what the user wants to know
                self._launcher.cancel([visit.job for visit in self._visits])
            raise
        if all(visit.outcome == "seen" for visit in self._visits):
            shutil.rmtree(self._folder, ignore_errors=True)  # NFS keeps what somebody has open
        visits = {visit.partition: visit for visit in self._visits}
        return tuple(
            _profile(one, kinds.get(one.name, _NO_KINDS), plans[one.name], visits.get(one.name)) for one in wanted
        )

    def _plan(self, partition: Partition, kinds: NodeKinds) -> Plan:
        folder = self._folder / partition.name
        found = [(ask, request(partition, kinds, ask, folder, self._wish.account)) for ask in asks(partition, kinds)]
        if not partition.takes_jobs:
            return Plan(None, found[-1][0], f"its state is {partition.state}")
        if kinds.nodes == 0:
            return Plan(None, found[-1][0], "it has no nodes")
        return choose(found, self._launcher.forecast, time.time() + self._wish.patience_s)

    def _submit(self, plans: dict[str, Plan]) -> None:
        """Submit the jobs; what Slurm refuses becomes the reason of its plan."""
        for name, plan in list(plans.items()):
            if plan.request is None:
                continue
            folder = plan.request.log_folder
            make_directory(folder)
            write_atomic(folder / SECRET, secrets.token_hex(32))
            try:
                job = self._launcher.submit(plan.request)
            except SlurmError as error:
                plans[name] = Plan(None, plan.ask, str(error))
                continue
            self._visits.append(Visit(name, job, folder, plan.ask.nodes, time.time()))
            self._tell(f"partition {name}: job {job} on {plan.ask.nodes} nodes {plan.ask.gpu_option}".rstrip())

    def _show(self, visits: Sequence[Visit]) -> None:
        waiting = [one for one in visits if one.outcome is None]
        said = [f"{one.partition} ({'runs' if one.started_at else one.waits_for or 'starts'})" for one in waiting]
        if said and said != self._said:
            self._tell(f"waiting for {', '.join(said)}")
        self._said = said


def _wanted(names: tuple[str, ...], known: Mapping[str, Partition]) -> list[str]:
    absent = [name for name in names if name not in known]
    if absent:
        raise UsageError(f"--partition {absent[0]!r}: expected one of {', '.join(known)}")
    return list(dict.fromkeys(names)) or list(known)


def _profile(partition: Partition, kinds: NodeKinds, plan: Plan, visit: Visit | None) -> PartitionProfile:
    said = PartitionProfile(
        name=partition.name,
        date=time.time(),
        outcome="refused",
        reason=plan.reason,
        gpus=kinds.gpus,
        cpus_per_node=kinds.cpus or None,
        memory_per_node=kinds.memory or None,
        nodes=kinds.nodes,
        max_time_s=partition.max_time_s,
        default_time_s=partition.default_time_s,
        preempt_mode=partition.preempt_mode,
        grace_s=partition.grace_s,
        features=kinds.features,
    )
    if visit is None or visit.outcome is None:
        return said
    if visit.outcome != "seen":
        return msgspec.structs.replace(said, outcome=visit.outcome, reason=visit.reason)
    return msgspec.structs.replace(
        said,
        outcome=visit.outcome,
        reason="",
        seen_at=time.time(),
        job=visit.job,
        waited_s=visit.waited_s,
        gpu_option=plan.ask.gpu_option,
        asked_cpus=plan.request.cpus_per_task if plan.request else CPUS,
        asked_gpus=1 if plan.ask.gpu_option else 0,
        asked_memory=plan.ask.mem or "",
        reports=visit.node_reports(),
        routes=visit.all_routes(),
    )
