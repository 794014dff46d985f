"""The native engine: how to start it and what it refuses."""

import re
from typing import get_args

from ...core.errors import SpecError
from ...core.logs.text import LogFormat
from ...core.sizes import KVCacheDtype
from ...core.workers.layout import Fault, Layout
from ..native.options import (
    API_KEY_VARIABLE,
    MAX_DRAFT_TOKENS,
    RANK_SECRET_VARIABLE,
    EngineOptions,
    Quantization,
)
from .failures.engines import NATIVE
from .failures.gpu import GPU
from .failures.model import MODEL
from .launch import EngineLaunch, flags, rank_list
from .request import PoolRequest, refuse_flags

_GPU_BATCH_TOKENS = 8192  # of a step: a GPU computes so many of a prompt in the time of some decode steps
_NOT_YOURS = ("--host", "--port", "--uds")  # by which it would listen at a port


class NativeAdapter:
    """`python -m slurminfer.nodes.native`, one per node; the head's serves HTTP."""

    default_capacity = EngineOptions.max_running_requests
    in_flight_metrics = ("slurminfer_engine_running_requests", "slurminfer_engine_waiting_requests")
    kv_cache_dtypes = get_args(KVCacheDtype)
    log_format = LogFormat(remark=re.compile(r"^slower without compiled kernels: "))
    known_failures = (*NATIVE, *MODEL, *GPU)

    def check(self, request: PoolRequest) -> None:
        """Raise SpecError for a format of weights or a way of guessing tokens that this engine does not have.

        So too where it is asked to listen elsewhere.
        """
        refuse_flags(request, _NOT_YOURS)
        known = get_args(Quantization)
        if request.model.quantization not in (None, *known):
            expected = f"engine native reads {', '.join(known)}; leave it out for what the model is"
            raise SpecError(f"{request.model_key}.quantization", request.model.quantization, expected)
        guesses = request.speculative
        if guesses is not None and guesses.is_head:
            expected = f"expected ngram or draft (engine native of {request.key})"
            raise SpecError("speculative.method", guesses.method, expected)
        if guesses is not None and guesses.draft_tokens > MAX_DRAFT_TOKENS:
            expected = f"expected at most {MAX_DRAFT_TOKENS} (engine native of {request.key})"
            raise SpecError("speculative.draft_tokens", guesses.draft_tokens, expected)

    def layout_fault(self, layout: Layout) -> Fault | None:
        """None: this engine computes every layout that the nodes allow."""
        return None

    def argv(self, launch: EngineLaunch) -> list[str]:
        """The command line; ranks and rendezvous stand in it only where several ranks compute one model."""
        guesses = launch.speculative
        return [
            launch.python, "-m", "slurminfer.nodes.native",
            *flags(
                model=launch.model.path,
                served_model_name=launch.model.served_name,
                uds=launch.socket,
                dtype=launch.model.dtype,
                quantization=launch.model.quantization,
                kv_cache_dtype=launch.model.kv_cache_dtype,
                context_length=launch.model.context_length,
                max_running_requests=launch.pool.max_running_requests,
                max_batch_tokens=_GPU_BATCH_TOKENS if launch.pool.gpus_per_node else None,
                threads=launch.threads,
                speculative=guesses and guesses.method,
                draft_model=guesses and guesses.draft_model,
                draft_tokens=guesses and guesses.draft_tokens,
            ),
            *self._parallel(launch),
            *launch.pool.extra_args,
        ]  # fmt: skip

    def env(self, launch: EngineLaunch) -> dict[str, str]:
        """The API key and, of several ranks, the secret by which they know each other."""
        of_ranks = {RANK_SECRET_VARIABLE: launch.rank_secret} if launch.ranks > 1 else {}
        return {API_KEY_VARIABLE: launch.key, **of_ranks}

    def _parallel(self, launch: EngineLaunch) -> list[str]:
        if launch.ranks == 1:
            return []
        return flags(
            **launch.pool.layout.by_key(),
            nodes=launch.pool.nodes,
            node_rank=launch.node_rank,
            rendezvous=launch.rendezvous,
            rank_cpus=rank_list(launch.rank_cpus) if launch.pool.gpus_per_node and launch.rank_cpus else None,
        )
