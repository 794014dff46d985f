"""The degrees of parallelism of one worker, as its spec, its engine and measurements name them."""

from dataclasses import dataclass, fields

from ..errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ParallelDegrees:
    """How many ranks compute one model together, and what they share. Raises UsageError for a degree below 1.

    A rank is one process that computes. The fields are called as the keys of a spec and the flags of the native engine.
    """

    tensor_parallel: int = 1  # ranks that split each layer
    sequence_parallel: int = 1  # groups of such ranks that split the tokens and the KV cache
    pipeline_parallel: int = 1  # stages of layers, one after the other, each with such groups of its own

    def __post_init__(self) -> None:
        for name, degree in self.by_key().items():
            if degree < 1:
                raise UsageError(f"{name} = {degree}: expected at least 1")

    @property
    def ranks(self) -> int:
        """Ranks in all: the product of the degrees."""
        return self.stage_ranks * self.pipeline_parallel

    @property
    def stage_ranks(self) -> int:
        """Ranks of one pipeline stage."""
        return self.tensor_parallel * self.sequence_parallel

    def by_key(self) -> dict[str, int]:
        """The degrees by their keys in a spec: tensor_parallel, sequence_parallel, pipeline_parallel."""
        return {field.name: getattr(self, field.name) for field in fields(ParallelDegrees)}
