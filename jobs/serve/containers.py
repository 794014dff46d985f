"""The containers of a spec's pools: which runtime starts them, and what is refused before submission."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from ...core.containers import ContainerRuntime, is_path, runtimes_of
from ...core.errors import SpecError
from ...core.site.doctor import SiteProfile
from ...core.site.store import read_site
from ...core.spec.deployment import DeploymentSpec
from ...core.spec.pool import PoolSpec
from ...nodes.containers.mounts import may_be_mounted
from ..launch.local import LocalLauncher

_APPTAINER = ("apptainer", "singularity")


def with_runtimes(
    spec: DeploymentSpec, site: Callable[[], SiteProfile | None] = read_site, prefix: Path = Path(sys.base_prefix)
) -> DeploymentSpec:
    """The spec with the runtime of every container, whose images are there.

    Raises SpecError for an image that is not, and where slurminfer's own Python cannot be in the container.

    Args:
        site: reads what the doctor has learned; called only where an image's form says nothing.
        prefix: where slurminfer's Python is installed.
    """
    pools = []
    for index, pool in enumerate(spec.pool):
        if pool.container is not None:
            _check(f"pool[{index}]", pool, pool.container, prefix)
            runtime = pool.container_runtime or _usual(pool, pool.container, site)
            pool = msgspec.structs.replace(pool, container_runtime=runtime)
        pools.append(pool)
    return msgspec.structs.replace(spec, pool=tuple(pools))


def require_launcher(spec: DeploymentSpec, launcher: str) -> None:
    """Raise SpecError where a pool's container needs Slurm, and the workers are to be processes of this machine."""
    for index, pool in enumerate(spec.pool):
        if pool.container_runtime == "pyxis" and launcher == LocalLauncher.name:
            expected = "pyxis is a part of srun and needs Slurm jobs (without --local); expected apptainer"
            raise SpecError(f"pool[{index}].container_runtime", "pyxis", expected)


def _check(key: str, pool: PoolSpec, image: str, prefix: Path) -> None:
    if is_path(image):
        path = Path(image)
        if not path.exists():
            raise SpecError(f"{key}.container", image, "there is no such file; it must be where all nodes see it")
        if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
            raise SpecError(f"{key}.container", image, "you may not read it")
    if pool.engine == "native" and pool.python is None and not may_be_mounted(prefix):
        why = f"missing; slurminfer's own Python is in {prefix}, which in a container is the image's"
        raise SpecError(f"{key}.python", None, f"{why}: name a Python of the image that has slurminfer installed")


def _usual(pool: PoolSpec, image: str, site: Callable[[], SiteProfile | None]) -> ContainerRuntime:
    """The runtime by the image's form; where it is for several, Pyxis only where the doctor has seen no other."""
    possible = runtimes_of(image)
    if len(possible) == 1 or is_path(image):
        return possible[0]
    profile = site()
    has_pyxis = profile is not None and profile.cluster is not None and profile.cluster.has_pyxis
    has_apptainer = profile is not None and any(map(_has_apptainer, _containers(profile, pool.partition)))
    return "pyxis" if has_pyxis and not has_apptainer else "apptainer"


def _containers(profile: SiteProfile, partition: str | None) -> Iterator[dict[str, str]]:
    """Runtimes and versions on the nodes that the doctor has seen in a partition; None: in any."""
    for seen in profile.partitions:
        if partition in (None, seen.name):
            yield from (report.machine.software.containers for report in seen.reports)


def _has_apptainer(containers: dict[str, str]) -> bool:
    return any(name in containers for name in _APPTAINER)
