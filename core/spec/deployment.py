"""A whole spec."""

from ..errors import SpecError
from ..toml import Section
from ..workers.ids import role_of
from .model import ModelSpec, SpeculativeSpec
from .pool import PoolSpec
from .router import RouterSpec
from .values import parse_time


class DeploymentSpec(Section, frozen=True, kw_only=True):
    """A spec file: one deployment, which is one HTTP endpoint with the workers behind it."""

    # Name of the deployment, for `slurminfer status NAME` and the others; Slurm's job names begin with it. Letters,
    # digits, '.', '_' and '-', at most 63, beginning with a letter or digit.
    name: str
    # The model of all pools that have none of their own. May be left out where every pool has one.
    model: ModelSpec | None = None
    # The workers: at least one [[pool]].
    pool: tuple[PoolSpec, ...]
    # The endpoint; without this section it has the defaults of all its keys.
    router: RouterSpec = RouterSpec()
    # Speculative decoding in all pools; without this section there is none.
    speculative: SpeculativeSpec | None = None

    @property
    def router_time_s(self) -> int:
        """The walltime limit of the router's job in seconds."""
        if self.router.time is not None:
            return parse_time(self.router.time)
        return max(pool.time_s for pool in self.pool)

    def slots(self) -> list[PoolSpec]:
        """The pool of every worker that the spec asks for, pool after pool. A slot is an index into this list."""
        return [pool for pool in self.pool for _ in range(pool.initial_workers)]

    def pool_of(self, worker_id: str) -> PoolSpec:
        """The pool of a worker, by its id. Raises SpecError for an id that no worker of this spec can have."""
        name, _, serial = role_of(worker_id).rpartition("-")
        for pool in self.pool:
            if pool.name == name and serial.isdecimal():
                return pool
        expected = f"expected POOL-SERIAL; pools: {', '.join(pool.name for pool in self.pool)}"
        raise SpecError("worker", worker_id, expected)

    def model_of(self, pool: PoolSpec) -> ModelSpec:
        """The model that a pool's workers serve: its own, else that of [model]."""
        model = pool.model or self.model
        assert model is not None, "checked when the spec was read"
        return model

    def spill_after_of(self, pool: PoolSpec) -> float | None:
        """The pool's `spill_after`; 0 for a backfill pool without one beside other pools of its model."""
        is_second = pool.backfill and not self.has_only_backfill(self.model_of(pool).served_name)
        return 0.0 if is_second and pool.spill_after is None else pool.spill_after

    def has_only_backfill(self, model: str) -> bool:
        """Whether all pools that serve the model of this name are backfill pools."""
        return all(pool.backfill for pool in self.pool if self.model_of(pool).served_name == model)


def served_names(spec: DeploymentSpec) -> list[str]:
    """The names of all models, each once."""
    return list(dict.fromkeys(spec.model_of(pool).served_name for pool in spec.pool))
