"""What loading a model needs to know of a rank's part of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from .....quant.checkpoint.config import ModelConfig
from .....quant.checkpoint.weights import Reads, Weights
from .sequence import SequenceGroup
from .shard import Shard
from .shared_memory import SharedMemory


@dataclass(frozen=True, kw_only=True)
class ModelPart:
    """What one rank loads of a model. Where one process has it all, `shard`, `reduce` and `sequence` are None."""

    whole: ModelConfig
    shard: Shard | None = None
    reduce: Callable[[torch.Tensor], torch.Tensor] | None = None  # sums over tensor ranks; None: there is one
    memory: SharedMemory | None = None  # of all tensor ranks, where they are on one node
    sequence: SequenceGroup | None = None  # the ranks that share tokens; None: there is one
    all_reduce_min: Callable[[int], int] = lambda value: value  # of all ranks
    ranks_here: int = 1  # on this node, which share its memory

    @property
    def config(self) -> ModelConfig:
        """The shape of this part, as if it were a whole model."""
        return self.whole if self.shard is None else self.shard.config(self.whole)

    @property
    def is_first_rank(self) -> bool:
        """Whether this is the first of all ranks: what concerns the whole model is said once."""
        is_first_shard = self.shard is None or (self.shard.is_first and self.shard.tensor_rank == 0)
        return is_first_shard and (self.sequence is None or self.sequence.rank == 0)

    @property
    def sequence_ranks(self) -> int:
        """How many ranks share the tokens of each sequence."""
        return 1 if self.sequence is None else self.sequence.size

    @property
    def name(self) -> str:
        """A name that tells this part from others of the model; empty for the whole."""
        return "" if self.shard is None else self.shard.name

    def weights(self, model: Path, dtype: torch.dtype) -> Reads:
        """Open the weights of this part, in `dtype` where unquantized. Raises ModelNotFoundError, CorruptModelError."""
        if self.shard is None:
            return Weights(model, dtype, self.whole.quantization)
        from .weights import ShardWeights

        return ShardWeights(model, dtype, self.whole, self.shard)
