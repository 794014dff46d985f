"""The parts of this benchmark: each a module of its own, with the figures that it is judged by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import chaos, echo, embeddings, fairness, messages, structured


@dataclass(frozen=True, slots=True)
class Part:
    """One part: `measure` gets the demo model's directory and whether to be quick.

    `judged`: the figures that it is judged by: name -> (what is wanted, key in what `measure` returns).
    """

    about: str
    measure: Callable[[Path, bool], dict[str, Any]]
    judged: Mapping[str, tuple[str, str]] = field(default_factory=dict)


PARTS: Mapping[str, Part] = {
    "structured": Part(
        "structured output: what masks cost, and whether answers are valid by their schemas",
        structured.measure,
        {
            "structured_overhead_8": ("at most 1.05", "overhead_8"),
            "schema_valid_share": ("1.0", "valid_share"),
        },
    ),
    "messages": Part(
        "Anthropic's API: what its translation in the router adds to a request, whole and streamed",
        messages.measure,
        {
            "messages_added_ms": ("at most 1", "messages_added_ms"),
            "messages_added_stream_ms": ("at most 3", "messages_added_stream_ms"),
        },
    ),
    "echo": Part(
        "log-probabilities of prompts, against transformers in float32",
        echo.measure,
        {"echo_logprob_error": ("at most 0.001", "max_error")},
    ),
    "embeddings": Part(
        "embeddings: texts/s beside sentence-transformers, and whether the vectors are the same",
        embeddings.measure,
        {
            "embeddings_speedup_bfloat16": ("at least 1", "speedup_bfloat16"),
            "embeddings_speedup_float32": ("at least 1", "speedup_float32"),
            "embeddings_likeness_bfloat16": ("at least 0.99", "likeness_bfloat16"),
            "embeddings_likeness_float32": ("at least 0.99999", "likeness_float32"),
        },
    ),
    "chaos": Part(
        "answers of every API whose workers are killed in the middle: how many are not as they would have been",
        chaos.measure,
        {"wrong_answers": ("0", "wrong_answers")},
    ),
    "fairness": Part(
        "one client's stream beside other clients that ask for much, of our server and of vLLM's",
        fairness.measure,
        {"fairness_worst_gap_ms": ("at most 1,000", "worst_gap_ms")},
    ),
}
