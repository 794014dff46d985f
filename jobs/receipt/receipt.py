"""The receipt: what each job has used, added up. Pure; where the figures come from is gather.py's."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from ...core.records import ROUTER, EnergyRecord
from ...core.site.prices import Price, PriceTable
from ...router.tenants.tenant import Usage
from ...slurm.accounting import JobRun
from .harvest import HarvestLine, harvests
from .ledger import JobUsage

_SECONDS, _JOULES = 3600.0, 3.6e6  # in an hour, in a kWh
# Between a job's submission by this machine's clock and its times by Slurm's.
_SKEW_S = 300.0
# Less unseen time than this is a rounding error of the sums over many looks.
_ROUNDING_S = 1e-3


class Hours(msgspec.Struct, frozen=True, kw_only=True):
    """Hours of what jobs were given."""

    gpu: float = 0.0
    cpu: float = 0.0
    node: float = 0.0

    def __add__(self, other: "Hours") -> "Hours":
        return Hours(gpu=self.gpu + other.gpu, cpu=self.cpu + other.cpu, node=self.node + other.node)

    def part(self, share: float) -> "Hours":
        """A part of them, 0 to 1."""
        return Hours(gpu=self.gpu * share, cpu=self.cpu * share, node=self.node * share)


class PoolLine(msgspec.Struct, frozen=True, kw_only=True):
    """What the jobs of a pool have used. `total` is the sum of `loading`, `idle`, `serving` and `unseen`."""

    pool: str
    jobs: int = 0
    total: Hours = Hours()
    loading: Hours = Hours()  # from the start of a job to its first token
    idle: Hours = Hours()  # ready, nothing in flight
    serving: Hours = Hours()
    unseen: Hours = Hours()  # nobody knows which of these
    overlap: Hours = Hours()  # of the total: a job and the one that it took over from ran at the same time
    cost: float | None = None  # None: no price is known
    energy_kwh: float | None = None  # measured by Slurm
    read_kwh: float | None = None  # of jobs that Slurm has not measured, read by the workers
    estimated_kwh: float | None = None  # by the watts of the price table, of what nobody has measured or read

    def __add__(self, other: "PoolLine") -> "PoolLine":
        return PoolLine(
            pool=self.pool,
            jobs=self.jobs + other.jobs,
            total=self.total + other.total,
            loading=self.loading + other.loading,
            idle=self.idle + other.idle,
            serving=self.serving + other.serving,
            unseen=self.unseen + other.unseen,
            overlap=self.overlap + other.overlap,
            cost=_plus(self.cost, other.cost),
            energy_kwh=_plus(self.energy_kwh, other.energy_kwh),
            read_kwh=_plus(self.read_kwh, other.read_kwh),
            estimated_kwh=_plus(self.estimated_kwh, other.estimated_kwh),
        )

    @property
    def kwh(self) -> float | None:
        """All energy that is known or estimated."""
        return _plus(_plus(self.energy_kwh, self.read_kwh), self.estimated_kwh)


class ChargeLine(msgspec.Struct, frozen=True, kw_only=True):
    """What a Slurm account is charged for: hours of the jobs that accounting knows."""

    account: str
    jobs: int = 0
    total: Hours = Hours()


class TokenLine(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of a tenant, or of all tenants of a Slurm account."""

    name: str
    account: str | None = None  # Slurm account that the tenant's key names
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompt tokens
    generated_tokens: int = 0


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens for an hour of the workers' GPUs, or of their CPUs."""

    hour_of: str  # GPU or CPU
    generated_tokens: float
    all_tokens: float  # prompt and generated


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. Times are Unix seconds."""

    name: str
    is_running: bool
    since: float | None  # submission of the first job
    pools: tuple[PoolLine, ...]  # the router's last
    total: PoolLine
    charged: tuple[ChargeLine, ...]  # by Slurm account; empty without accounting
    tenants: tuple[TokenLine, ...]
    accounts: tuple[TokenLine, ...]  # of tenants whose key names one
    tokens: TokenLine
    rates: tuple[Rate, ...]  # without the router's hours
    harvests: tuple[HarvestLine, ...] = ()  # of backfill pools, by the controller's clock
    currency: str | None = None
    kg_co2: float | None = None
    remarks: tuple[str, ...] = ()


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a receipt is made of."""

    name: str
    is_running: bool
    jobs: Sequence[JobUsage]
    runs: Mapping[str, Sequence[JobRun]]  # by job, as accounting knows them
    usage: Mapping[str, Usage]  # by tenant
    accounts: Mapping[str, str | None]  # by tenant, what its key names
    prices: PriceTable | None = None
    remarks: tuple[str, ...] = ()  # on how it was found


def receipt_of(found: Found) -> Receipt:
    """Add it all up."""
    runs = [own_runs(job, found.runs.get(job.job, ())) for job in found.jobs]
    lines = [_job_line(job, own, found.prices) for job, own in zip(found.jobs, runs, strict=True)]
    pools = _by_pool(lines)
    total = _sum("total", pools)
    tokens = [_token_line(name, used, found.accounts.get(name)) for name, used in sorted(found.usage.items())]
    table = found.prices or PriceTable()
    kwh = total.kwh
    whole = _sum_tokens("all", tokens)
    return Receipt(
        name=found.name,
        is_running=found.is_running,
        since=min((job.submitted_at for job in found.jobs), default=None),
        pools=tuple(pools),
        total=total,
        charged=tuple(_by_charged(zip(runs, lines, strict=True))),
        tenants=tuple(tokens),
        accounts=tuple(_by_account(tokens)),
        tokens=whole,
        rates=tuple(_rates(pools, whole)),
        harvests=tuple(harvests(found.jobs)),
        currency=table.currency,
        kg_co2=None if kwh is None or table.kg_co2_per_kwh is None else kwh * table.kg_co2_per_kwh,
        remarks=(*found.remarks, *_remarks(found, pools, total)),
    )


def own_runs(job: JobUsage, runs: Sequence[JobRun]) -> list[JobRun]:
    """Those runs that count: none where accounting has lost the end of the job, or means an older job of this id."""
    own = [run for run in runs if run.started_at is not None and run.started_at > job.submitted_at - _SKEW_S]
    has_lost_end = job.ended_at is not None and any(run.ended_at is None for run in own)
    return [] if has_lost_end else own


def _job_line(job: JobUsage, runs: Sequence[JobRun], prices: PriceTable | None) -> PoolLine:
    total, seconds = _ledger_hours(job), job.running_s
    if runs:
        total = sum((_run_hours(run, job) for run in runs), Hours())
        seconds = sum(run.elapsed_s for run in runs)
    seen = job.loading_s + job.idle_s + job.serving_s
    whole = max(seconds, seen)  # the two clocks may differ a little
    unseen_s = whole - seen
    loading, idle, serving = (_share(part, whole) for part in (job.loading_s, job.idle_s, job.serving_s))
    price = price_of(prices, runs[-1].partition if runs else job.partition)
    measured = [run.energy_j for run in runs if run.energy_j is not None]
    return PoolLine(
        pool=job.pool,
        jobs=1,
        total=total,
        loading=total.part(loading),
        idle=total.part(idle),
        serving=total.part(serving),
        unseen=total.part(_share(unseen_s if unseen_s > _ROUNDING_S else 0.0, whole)),
        overlap=total.part(min(1.0, _share(job.overlap_s, whole))),
        cost=cost_of(total, price),
        energy_kwh=sum(measured) / _JOULES if measured else None,
        read_kwh=None if measured else _read_kwh(job.energy),
        estimated_kwh=None if measured else _estimate(_unread(total, job.energy), price),
    )


def _ledger_hours(job: JobUsage) -> Hours:
    hours = job.running_s / _SECONDS
    return Hours(gpu=job.gpus * hours, cpu=job.cpus * hours, node=job.nodes * hours)


def _run_hours(run: JobRun, job: JobUsage) -> Hours:
    """By accounting; where that does not count GPUs or nodes, those that the job asked for."""
    hours = run.elapsed_s / _SECONDS
    gpus, cpus, nodes = run.gpus or job.gpus, run.cpus or job.cpus, run.nodes or job.nodes
    return Hours(gpu=gpus * hours, cpu=cpus * hours, node=nodes * hours)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def price_of(prices: PriceTable | None, partition: str) -> Price | None:
    """The price of a partition; None where none is known."""
    return None if prices is None else prices.by_name.get(partition, prices.default)


def cost_of(hours: Hours, price: Price | None) -> float | None:
    """What these hours cost; None where no price is known."""
    if price is None:
        return None
    return hours.gpu * price.gpu_hour + hours.cpu * price.cpu_hour + hours.node * price.node_hour


def _read_kwh(energy: EnergyRecord | None) -> float | None:
    found = [] if energy is None else [joules for joules in (energy.cpu_j, energy.gpu_j) if joules is not None]
    return sum(found) / _JOULES if found else None


def _unread(hours: Hours, energy: EnergyRecord | None) -> Hours:
    """The hours of those parts whose energy nobody has read. Of a node without its GPUs and CPUs nobody ever does."""
    if energy is None:
        return hours
    gpu, cpu = (
        0.0 if joules is not None else part for joules, part in ((energy.gpu_j, hours.gpu), (energy.cpu_j, hours.cpu))
    )
    return Hours(gpu=gpu, cpu=cpu, node=hours.node)


def _estimate(hours: Hours, price: Price | None) -> float | None:
    if price is None or not (price.gpu_watts or price.cpu_watts or price.node_watts):
        return None
    return (hours.gpu * price.gpu_watts + hours.cpu * price.cpu_watts + hours.node * price.node_watts) / 1000


def _by_pool(lines: Iterable[PoolLine]) -> list[PoolLine]:
    """One line a pool, by name, the router's last."""
    pools: dict[str, PoolLine] = {}
    for line in lines:
        pools[line.pool] = pools[line.pool] + line if line.pool in pools else line
    return sorted(pools.values(), key=lambda line: (line.pool == ROUTER, line.pool))


def _by_charged(jobs: Iterable[tuple[Sequence[JobRun], PoolLine]]) -> list[ChargeLine]:
    """By the account of each job's latest run; moving a job to another account is rare."""
    found: dict[str, ChargeLine] = {}
    for runs, line in jobs:
        if runs:
            before = found.get(runs[-1].account, ChargeLine(account=runs[-1].account))
            both = ChargeLine(account=before.account, jobs=before.jobs + 1, total=before.total + line.total)
            found[before.account] = both
    return [found[name] for name in sorted(found)]


def _sum(name: str, lines: Iterable[PoolLine]) -> PoolLine:
    return sum(lines, PoolLine(pool=name))


def _token_line(name: str, used: Usage, account: str | None) -> TokenLine:
    return TokenLine(
        name=name,
        account=account,
        requests=used.requests,
        prompt_tokens=used.prompt_tokens,
        cached_tokens=used.cached_tokens,
        generated_tokens=used.generated_tokens,
    )


def _by_account(lines: Sequence[TokenLine]) -> list[TokenLine]:
    names = sorted({line.account for line in lines if line.account is not None})
    return [_sum_tokens(name, [line for line in lines if line.account == name]) for name in names]


def _sum_tokens(name: str, lines: Sequence[TokenLine]) -> TokenLine:
    return TokenLine(
        name=name,
        requests=sum(line.requests for line in lines),
        prompt_tokens=sum(line.prompt_tokens for line in lines),
        cached_tokens=sum(line.cached_tokens for line in lines),
        generated_tokens=sum(line.generated_tokens for line in lines),
    )


def _rates(pools: Sequence[PoolLine], tokens: TokenLine) -> list[Rate]:
    """Tokens by the hours of pools with GPUs; where there is none, by those of CPUs."""
    workers = _sum("workers", (line for line in pools if line.pool != ROUTER))
    unit, hours = ("GPU", workers.total.gpu) if workers.total.gpu else ("CPU", workers.total.cpu)
    if not hours:
        return []
    both = tokens.prompt_tokens + tokens.generated_tokens
    return [Rate(hour_of=unit, generated_tokens=tokens.generated_tokens / hours, all_tokens=both / hours)]


def _remarks(found: Found, pools: Sequence[PoolLine], total: PoolLine) -> list[str]:
    remarks = []
    workers = [line for line in pools if line.pool != ROUTER]
    if any(line.total.gpu for line in workers) and any(line.total.cpu and not line.total.gpu for line in workers):
        remarks.append("tokens are not counted by pool: those of the pools on CPUs are among the tokens per GPU-hour")
    if found.prices is not None and (unpriced := _unpriced(found)):
        remarks.append(f"no price for {', '.join(unpriced)}: their jobs are not part of the cost")
    if total.jobs and total.energy_kwh is None and total.read_kwh is None:
        remarks.append(
            "energy is not measured: Slurm accounts none, and the nodes let nobody read it, as on most clusters"
        )
    elif total.energy_kwh is not None and (total.read_kwh is not None or total.estimated_kwh is not None):
        remarks.append("Slurm has measured the energy of some jobs only")
    return [*remarks, *_remarks_on_reading(found.jobs, total)]


def _remarks_on_reading(jobs: Sequence[JobUsage], total: PoolLine) -> list[str]:
    """What is in the energy that the workers have read."""
    read = [job.energy for job in jobs if job.energy is not None] if total.read_kwh is not None else []
    remarks = []
    if any(energy.cpu_j is not None for energy in read):
        remarks.append(
            "energy of CPUs: what the node's processors have drawn, for other jobs too, times the job's share of the "
            "node's CPUs"
        )
    if any(energy.gpu_j is not None for energy in read):
        remarks.append("energy of GPUs: that of their whole boards, and of nothing else in the node")
    if any(energy.gpu_j is not None and energy.is_sampled for energy in read):
        remarks.append("energy of some GPUs is a sum over samples of their power: nvidia-ml-py is not installed")
    return remarks


def _unpriced(found: Found) -> list[str]:
    partitions = {
        runs[-1].partition if (runs := own_runs(job, found.runs.get(job.job, ()))) else job.partition
        for job in found.jobs
    }
    missing = sorted(name for name in partitions if price_of(found.prices, name) is None)
    return [f"partition '{name}'" if name else "jobs whose partition is not known" for name in missing]


def _plus(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else one + other
