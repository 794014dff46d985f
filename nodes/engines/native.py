"""Starting the native engine."""

from ..native.options import API_KEY_VARIABLE, EngineOptions
from .launch import EngineLaunch, flags

_GPU_BATCH_TOKENS = 8192  # of a step: a GPU computes so many of a prompt in the time of some decode steps


class NativeAdapter:
    """`python -m slurminfer.nodes.native`, one per node; the head's serves HTTP."""

    default_capacity = EngineOptions.max_running_requests
    in_flight_metrics = ("slurminfer_engine_running_requests", "slurminfer_engine_waiting_requests")

    def argv(self, launch: EngineLaunch) -> list[str]:
        guesses = launch.speculative
        return [
            launch.python, "-m", "slurminfer.nodes.native",
            *flags(
                model=launch.model.path,
                served_model_name=launch.model.served_name,
                host=launch.address,
                port=launch.port,
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
        return {API_KEY_VARIABLE: launch.key}

    def _parallel(self, launch: EngineLaunch) -> list[str]:
        if launch.ranks == 1:
            return []
        return flags(
            tensor_parallel=launch.pool.tensor_parallel,
            sequence_parallel=launch.pool.sequence_parallel,
            pipeline_parallel=launch.pool.pipeline_parallel,
            nodes=launch.pool.nodes,
            node_rank=launch.node_rank,
            rendezvous=launch.rendezvous,
        )
