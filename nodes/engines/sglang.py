"""SGLang: how to start it, what it refuses, how it logs.

Flags as of 0.5.16: docs.sglang.io, "Server Arguments", "Multi-node" and "Quantized KV Cache".
"""

import json
import re
from pathlib import Path

from ...core.files import write_atomic
from ...core.logs.text import LogFormat
from ...core.net.sockets import hold_port
from ...core.workers.layout import Fault, Layout
from .failures.engines import SGLANG
from .failures.gpu import GPU
from .failures.model import MODEL
from .launch import EngineLaunch, flags, threads_bind
from .request import PoolRequest, refuse_flags, refuse_gguf_blocks, sequence_parallel_fault

_LOG_FORMAT = LogFormat(
    # "[2026-11-28 19:30:37 TP0] Load weight begin."
    prefix=re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[^\]]*\] "),
    # "Subprocess scheduler_0 (pid=1809) crashed with exit code -9."
    crash=re.compile(r"\bcrashed with exit code\b"),
    # It kills all of itself when one of its processes has failed: "... It usually means the child failed."
    ends_itself=re.compile(r"It usually means (?:the|one) child failed"),
)
# By which it would listen at a port, take another key, or start a server that is not uvicorn in its first process.
_NOT_YOURS = (
    "--host", "--port", "--api-key", "--admin-api-key", "--config", "--tokenizer-worker-num", "--enable-http2",
    "--enable-ssl-refresh", "--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs", "--ssl-keyfile-password",
    "--grpc-mode", "--smg-grpc-mode", "--grpc-port", "--sidecar", "--use-ray", "--encoder-only",
)  # fmt: skip
_LAUNCHER = Path(__file__).parent / "standalone" / "sglang_on_socket.py"


class SGLangAdapter:
    """`sglang.launch_server` on a Unix socket, one per node; the head's serves the API."""

    default_capacity = 256
    in_flight_metrics = ("sglang:num_running_reqs", "sglang:num_queue_reqs")
    kv_cache_dtypes = ("auto", "bfloat16", "fp8_e5m2", "fp8_e4m3", "fp4_e2m1")  # some need certain GPUs
    log_format = _LOG_FORMAT
    known_failures = (*SGLANG, *MODEL, *GPU)

    def check(self, request: PoolRequest) -> None:
        """Raise SpecError where it is asked to compute with GGUF's quantized blocks, or to listen elsewhere."""
        refuse_gguf_blocks(request)
        refuse_flags(request, _NOT_YOURS)

    def layout_fault(self, layout: Layout) -> Fault | None:
        """The fault of sequence_parallel, or where neither the stages nor the nodes are a multiple of the other."""
        fault, nodes, stages = sequence_parallel_fault(layout, "sglang"), layout.nodes, layout.pipeline_parallel
        if fault is None and stages % nodes and nodes % stages:  # _calculate_rank_ranges in SGLang's engine.py
            whole = f"SGLang needs whole stages on each of {nodes} nodes, or whole nodes for each stage"
            return "pipeline_parallel", whole
        return fault

    def argv(self, launch: EngineLaunch) -> list[str]:
        """The command line; the API key stands in a file of `launch.private`, which this writes."""
        return [
            launch.python, str(_LAUNCHER), str(launch.socket),
            *flags(
                config=self._key_file(launch),
                model_path=launch.model.path,
                served_model_name=launch.model.served_name,
                port=self._port(),
                dtype=launch.model.dtype,
                kv_cache_dtype=launch.model.kv_cache_dtype,
                context_length=launch.model.context_length,
                quantization=launch.model.quantization,
                max_running_requests=launch.pool.max_running_requests,
                tp_size=launch.pool.tensor_parallel,
                pp_size=launch.pool.pipeline_parallel,
            ),
            "--enable-metrics",
            "--skip-server-warmup",  # which would ask the port; the agent waits for tokens itself
            *self._device(launch),
            *self._multi_node(launch),
            *self._speculative(launch),
            *launch.pool.extra_args,
        ]  # fmt: skip

    def env(self, launch: EngineLaunch) -> dict[str, str]:
        """What makes it compute on CPUs and on which, and the address at which its ranks on several nodes meet."""
        of_cpus = {} if launch.pool.gpus_per_node else {"SGLANG_USE_CPU_ENGINE": "1", **self._bind(launch)}
        # Where its ranks exchange messages besides tensors; by default at the address of the route to the internet.
        return of_cpus if launch.pool.nodes == 1 else {"SGLANG_HOST_IP": launch.address, **of_cpus}

    def _key_file(self, launch: EngineLaunch) -> str:
        # SGLang takes its key by flag or config file only; a flag could be read in the process list.
        path = launch.private / "sglang.yaml"
        write_atomic(path, f"api-key: {json.dumps(launch.key)}\n")  # quoted, lest it is a number, a date or a boolean
        return str(path)

    def _port(self) -> int:
        """A port that is free now. SGLang does not listen there, but derives those of its ranks' messages from it."""
        with hold_port("127.0.0.1") as held:
            return int(held.getsockname()[1])

    def _bind(self, launch: EngineLaunch) -> dict[str, str]:
        # By default rank N takes the cores of the machine's NUMA node N. The list is of tensor ranks: with several
        # stages on a node it would put their ranks on the same CPUs.
        layout = launch.pool.layout
        has_one_stage_here = layout.ranks_per_node <= layout.tensor_parallel
        ranks = layout.tensor_parallel if has_one_stage_here else 0
        return threads_bind(launch, "SGLANG_CPU_OMP_THREADS_BIND", ranks) if ranks else {}

    def _device(self, launch: EngineLaunch) -> list[str]:
        return [] if launch.pool.gpus_per_node else ["--device", "cpu"]

    def _speculative(self, launch: EngineLaunch) -> list[str]:
        guesses = launch.speculative
        if guesses is None:
            return []
        counted = guesses.draft_tokens + 1  # the token before the guesses, which is known, is one more to compute
        if guesses.method == "ngram":
            return flags(speculative_algorithm="NGRAM", speculative_num_draft_tokens=counted)
        return flags(  # one chain of guesses, each a step
            speculative_algorithm={"draft": "STANDALONE"}.get(guesses.method, guesses.method.upper()),
            speculative_draft_model_path=guesses.draft_model,
            speculative_num_steps=guesses.draft_tokens,
            speculative_eagle_topk=1,
            speculative_num_draft_tokens=counted,
        )

    def _multi_node(self, launch: EngineLaunch) -> list[str]:
        if launch.pool.nodes == 1:
            return []
        return flags(nnodes=launch.pool.nodes, node_rank=launch.node_rank, dist_init_addr=launch.rendezvous)
