"""Checks of a whole spec, but for what depends on the engines. Errors name the key, the value and what is valid."""

from ..errors import SpecError
from .check_job import check_section
from .check_pool import check_pool
from .check_router import check_backend, check_origins, check_tls
from .deployment import DeploymentSpec
from .model import SpeculativeSpec
from .rules import check_rules
from .values import check_name

_MOST_WORKERS = 10_000


def check_deployment(spec: DeploymentSpec) -> None:
    """Raise SpecError for the first value that cannot be."""
    check_name("name", spec.name)
    if not spec.pool:
        raise SpecError("pool", None, "expected at least one [[pool]]")
    total = sum(pool.workers for pool in spec.pool)
    if total > _MOST_WORKERS:
        raise SpecError("pool", f"{total} workers in all", f"expected at most {_MOST_WORKERS}")
    check_section("router", spec.router)
    if spec.speculative is not None:
        _check_speculative(spec.speculative)
    _check_pools(spec)
    check_tls(spec.router)
    check_origins(spec.router.allowed_origins)
    check_backend(spec)
    check_rules(spec)
    _check_spill_over(spec)


def _check_pools(spec: DeploymentSpec) -> None:
    for index, pool in enumerate(spec.pool):
        key = f"pool[{index}]"
        check_name(f"{key}.name", pool.name)
        if pool.name == "router":
            raise SpecError(f"{key}.name", pool.name, "expected another name: the router's own job has this one")
        if pool.name in {other.name for other in spec.pool[:index]}:
            raise SpecError(f"{key}.name", pool.name, "expected a name of its own for every pool")
        check_pool(key, pool)
        if pool.model is None and spec.model is None:
            raise SpecError("model", None, f"missing; expected [model], or {key}.model")


def _check_speculative(speculative: SpeculativeSpec) -> None:
    method, draft = speculative.method, speculative.draft_model
    if method != "ngram" and draft is None:
        what = "smaller model" if method == "draft" else "head"
        raise SpecError("speculative.draft_model", None, f"expected the {what} that method '{method}' guesses with")
    if method == "ngram" and draft is not None:
        raise SpecError("speculative.draft_model", draft, "expected no model with method 'ngram'")


def _check_spill_over(spec: DeploymentSpec) -> None:
    first = {spec.model_of(pool).served_name for pool in spec.pool if spec.spill_after_of(pool) is None}
    for index, pool in enumerate(spec.pool):
        name = spec.model_of(pool).served_name
        if name not in first:
            expected = f"expected a pool of {name!r} without this key, from which requests spill over"
            raise SpecError(f"pool[{index}].spill_after", pool.spill_after, expected)
