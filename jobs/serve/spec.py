"""From a spec file to a spec whose models are there."""

from pathlib import Path

import msgspec

from ...core.spec.deployment import DeploymentSpec
from ...core.spec.files import dump_spec, load_spec, parse_spec
from ...core.spec.model import ModelSpec, SpeculativeSpec
from ...core.spec.pool import PoolSpec
from ...core.spec.rules import check_rules
from ...nodes.engines.check import check_engines
from ...quant.checkpoint.config import read_config
from ...quant.checkpoint.embedding import read_embedding
from ...quant.models import remark_on, resolve, resolve_head
from ...quant.progress import Progress, silent
from ...router.certificate import check_given_files
from ..terminal.console import stderr
from .containers import with_runtimes
from .site import with_gpu_options


def read_spec(path: Path, name: str | None = None) -> DeploymentSpec:
    """The spec file, under another name if one is given, with all checks of a spec. Raises SpecError."""
    spec = load_spec(path)
    if name is not None:
        spec = parse_spec(dump_spec(msgspec.structs.replace(spec, name=name)))
    check_engines(spec)
    check_given_files(spec.router)
    return with_gpu_options(with_runtimes(spec))


def with_models_found(spec: DeploymentSpec, progress: Progress = silent) -> DeploymentSpec:
    """The spec with its models as directories on this filesystem, fetched or converted if need be.

    Clients keep calling a model what the user called it: the hub id, or the directory's name. Raises ModelError, also
    for a model that is meant for engine native and that it does not compute, and SpecError for a rule that names none
    of the models.
    """
    pools = tuple(_pool_found(pool, progress) for pool in spec.pool)
    model = spec.model
    if model is not None:
        # What the key means for other engines is theirs to say: SGLang's "awq_marlin" is no kind of checkpoint.
        is_native = any(pool.engine == "native" and pool.model is None for pool in spec.pool)
        model = _found(model, is_native, progress)
    any_native = any(pool.engine == "native" for pool in spec.pool)
    draft = _draft_found(spec.speculative, any_native, progress)
    found = msgspec.structs.replace(spec, model=model, pool=pools, speculative=draft)
    check_rules(found)
    return found


def _pool_found(pool: PoolSpec, progress: Progress) -> PoolSpec:
    if pool.model is None:
        return pool
    return msgspec.structs.replace(pool, model=_found(pool.model, pool.engine == "native", progress))


def _found(model: ModelSpec, is_native: bool, progress: Progress) -> ModelSpec:
    """The model as a directory. Only the native engine's `quantization` says what kind of checkpoint it must be."""
    directory = resolve(model.path, progress, model.quantization if is_native else None)
    if is_native:
        read_config(directory)  # says what engine native does not compute
        read_embedding(directory)
        if remark := remark_on(directory):
            stderr.print(remark, markup=False, soft_wrap=True)
    name = model.name or (model.path if model.is_hub_id else directory.name)
    return msgspec.structs.replace(model, path=str(directory), name=name)


def _draft_found(speculative: SpeculativeSpec | None, is_native: bool, progress: Progress) -> SpeculativeSpec | None:
    if speculative is None or speculative.draft_model is None:
        return speculative
    find = resolve_head if speculative.is_head else resolve
    directory = find(speculative.draft_model, progress)
    if is_native and not speculative.is_head:
        read_config(directory)
    return msgspec.structs.replace(speculative, draft_model=str(directory))
