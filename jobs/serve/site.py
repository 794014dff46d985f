"""What `slurminfer doctor` has learned of the cluster, where it matters to a deployment.

A partition that a spec does not name is any that was seen: then only what holds in all of them is said.
"""

import re
from collections.abc import Callable, Iterator

import msgspec

from ...core.errors import RunDirectoryError
from ...core.job import gpu_gres
from ...core.net.address import INTERFACE
from ...core.site.doctor import PartitionProfile, SiteProfile
from ...core.site.store import read_site
from ...core.spec.deployment import DeploymentSpec
from ...core.spec.pool import PoolSpec
from ..doctor.routes import between_nodes, from_here

Site = Callable[[], SiteProfile | None]
_Find = Callable[[PartitionProfile], Iterator[tuple[str, str]]]


def with_gpu_options(spec: DeploymentSpec, site: Site = read_site) -> DeploymentSpec:
    """The spec with `slurm.gres` in pools whose partition was seen to refuse --gpus-per-node and to take --gres."""
    if not any(pool.gpus_per_node for pool in spec.pool) or (profile := _read(site)) is None:
        return spec
    pools = tuple(_with_gres(pool, profile) if pool.gpus_per_node else pool for pool in spec.pool)
    return msgspec.structs.replace(spec, pool=pools)


def remarks(spec: DeploymentSpec, site: Site = read_site) -> tuple[str, ...]:
    """What will not work of a deployment on this cluster, and what to change."""
    profile = _read(site)
    if profile is None or profile.cluster is None:
        return ()
    said = [*_on_submitting(spec, profile), *_on_routes(spec, profile)]
    return tuple(dict.fromkeys(said))


def _read(site: Site) -> SiteProfile | None:
    """The profile; None also where it is of another version: the doctor is asked again, or not."""
    try:
        return site()
    except RunDirectoryError:
        return None


def _with_gres(pool: PoolSpec, profile: SiteProfile) -> PoolSpec:
    options = {one.gpu_option for one in _partitions(profile, pool.partition) if one.gpu_option}
    if len(options) != 1 or gpu_gres(pool.slurm):
        return pool
    name, _, value = options.pop().removeprefix("--").partition("=")
    if name != "gres":
        return pool
    gres = re.sub(r"\d+$", str(pool.gpus_per_node), value)
    given = pool.slurm.get("gres")
    return msgspec.structs.replace(pool, slurm={**pool.slurm, "gres": f"{gres},{given}" if given else gres})


def _on_submitting(spec: DeploymentSpec, profile: SiteProfile) -> Iterator[str]:
    reports = [one for seen in _partitions(profile, spec.router.partition) for one in seen.reports]
    if not reports or any(one.may_submit is not False for one in reports):
        return
    where = f"partition '{spec.router.partition}'" if spec.router.partition else "this cluster"
    yield (
        f"jobs cannot be submitted from the nodes of {where} ({reports[0].submit_answer}), and the router's job is to "
        "do so: workers that end are not replaced, no more are started for more load, and the endpoint ends with that "
        "job. Set router.partition to one whose nodes may submit, or long times"
    )


def _on_routes(spec: DeploymentSpec, profile: SiteProfile) -> Iterator[str]:
    here = profile.here.network.host
    yield from _common("router", profile, spec.router.partition, lambda seen: from_here(seen, here))
    for pool in spec.pool:
        if INTERFACE not in pool.env:
            yield from _common(f"pool '{pool.name}'", profile, pool.partition, lambda seen: between_nodes(seen, here))


def _common(section: str, profile: SiteProfile, names: str | None, find: _Find) -> Iterator[str]:
    """What `find` says of each of the partitions in which a section's jobs may run."""
    of_each = [set(find(seen)) for seen in _partitions(profile, names) if seen.routes]
    where = f"partition {names}" if names else "this cluster"
    for what, advice in sorted(set.intersection(*of_each)) if of_each else ():
        yield f"{section}, in {where}: {what}" + (f": {advice}" if advice else "")


def _partitions(profile: SiteProfile, names: str | None) -> list[PartitionProfile]:
    """Those that the doctor has seen, of a list as Slurm takes it; all of them where none is named."""
    wanted = None if names is None else names.split(",")
    return [one for one in profile.partitions if one.reports and (wanted is None or one.name in wanted)]
