"""How many rows of logits a step may have: a row of a large vocabulary is half a megabyte."""

from dataclasses import dataclass

from ..options import EngineOptions

_FEWEST_PROMPT_ROWS = 16
# More is faster on a GPU, and of its memory the KV cache leaves a fifth.
_GPU_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class LogitsBudget:
    """Rows of logits of one step: of tokens to be sampled, and of prompts whose log-probabilities are wanted."""

    rows: int  # to be sampled, of all requests together
    each: int  # of one request
    fewest: int  # of prompts, however many are sampled

    def prompt_rows(self, running: int) -> int:
        """Rows for prompts in a step of `running` requests.

        Sampling makes several copies of its rows: where it has few, prompts get twice as many as it leaves.
        """
        return max(2 * (self.rows - self.each * running), self.fewest)


def logits_budget(options: EngineOptions, vocab_size: int, device: str = "cpu") -> LogitsBudget:
    """The budget of an engine. `device`: the type of the device that computes logits."""
    each = 1 + (options.draft_tokens if options.speculative != "none" else 0)
    fewest = _GPU_BYTES // (4 * vocab_size) if device == "cuda" else 0
    rows = min(options.max_running_requests * each, options.max_batch_tokens)
    return LogitsBudget(rows, each, max(fewest, _FEWEST_PROMPT_ROWS))
