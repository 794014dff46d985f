"""What a spec asks of the engine of one pool, and the refusals that several engines share."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...core.errors import SpecError
from ...core.spec.model import ModelSpec, SpeculativeSpec
from ...core.spec.pool import PoolSpec
from ...core.workers.layout import Fault, Layout


@dataclass(frozen=True, kw_only=True)
class PoolRequest:
    """One pool of a spec with what else of the spec concerns its engine, and the keys that errors name."""

    key: str  # of the pool, such as pool[0]
    pool: PoolSpec
    model: ModelSpec
    model_key: str  # "model", or such as pool[0].model where the pool has a model of its own
    speculative: SpeculativeSpec | None


def refuse_gguf_blocks(request: PoolRequest) -> None:
    """Raise SpecError where an engine that cannot compute with GGUF's quantized blocks is asked to."""
    if request.model.quantization == "gguf":
        cannot = f"engine {request.pool.engine} cannot read the blocks of a GGUF file"
        raise SpecError(f"{request.model_key}.quantization", "gguf", f"{cannot}; leave it out to have them converted")


def refuse_flags(request: PoolRequest, flags: Sequence[str]) -> None:
    """Raise SpecError where `extra_args` have one of `flags`, which would undo how the agent reaches the engine.

    argparse takes an unambiguous beginning of a flag for the flag, so that is refused too.
    """
    for word in request.pool.extra_args:
        given = word.partition("=")[0]
        refused = [flag for flag in flags if len(given) > len("--") and flag.startswith(given.replace("_", "-"))]
        if given.startswith("--") and refused:
            why = f"{refused[0]} is not to be set: the agent starts the engine on a Unix socket with a key of its own"
            raise SpecError(f"{request.key}.extra_args", word, why)


def sequence_parallel_fault(layout: Layout, engine: str) -> Fault | None:
    """The fault of a layout with sequence_parallel, for an engine that has no such thing."""
    if layout.sequence_parallel == 1:
        return None
    return "sequence_parallel", f"only engine native has it; flags of {engine}'s own go into extra_args"
