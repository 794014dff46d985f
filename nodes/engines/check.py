"""Checking what a spec asks of the engines of its pools, by what the engines' adapters say."""

from ...core.errors import SpecError
from ...core.spec.deployment import DeploymentSpec
from ...core.workers.layout import check_layout
from .launch import EngineAdapter
from .request import PoolRequest
from .table import adapter_of


def check_engines(spec: DeploymentSpec) -> None:
    """Raise SpecError for the first pool that asks for an engine that is not there, or for what its engine cannot do.

    `core/spec/` has checked everything else when it read the spec.
    """
    for index, pool in enumerate(spec.pool):
        key = f"pool[{index}]"
        request = PoolRequest(
            key=key,
            pool=pool,
            model=spec.model_of(pool),
            model_key="model" if pool.model is None else f"{key}.model",
            speculative=spec.speculative,
        )
        _check(request, adapter_of(pool.engine, f"{key}.engine"))


def _check(request: PoolRequest, adapter: EngineAdapter) -> None:
    dtype, known = request.model.kv_cache_dtype, adapter.kv_cache_dtypes
    if dtype not in known:
        expected = f"expected one of: {', '.join(known)} (engine {request.pool.engine} of {request.key})"
        raise SpecError(f"{request.model_key}.kv_cache_dtype", dtype, expected)
    adapter.check(request)
    check_layout(request.key, request.pool.layout, adapter.layout_fault)
