"""Measuring the native engine on this machine: decode, prefill, latency under load, and the machine's memory bandwidth.

The engine runs in a process of its own, see worker.py.
"""

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ....core.errors import UsageError
from ....core.machine.readings import cpu_name
from ....nodes.native.options import EngineOptions
from ....nodes.native.timing import Pace
from ....quant.progress import Progress, silent
from ...measuring import run_worker
from .results import EngineBench, Measured
from .worker import PACE, BenchTask

BATCHES, CONTEXTS, PREFILLS = (1, 8, 64), (128, 1024), (512, 2048)
REQUESTS, PROMPT, ANSWER = 32, 128, 64
_TEXT = "wiki"
_TEXT_TOKENS = 20_000
_CHARACTERS = 8  # of a token, at most, on average
_WORKER = "slurminfer.jobs.bench.engine.worker"


def bench(
    model: Path,
    options: dict[str, Any],
    *,
    batches: Sequence[int] = BATCHES,
    contexts: Sequence[int] = CONTEXTS,
    prefills: Sequence[int] = PREFILLS,
    rate: float | None = None,
    requests: int = REQUESTS,
    prompt: int = PROMPT,
    answer: int = ANSWER,
    text: str = _TEXT,
    pace: Pace = PACE,
    progress: Progress = silent,
) -> EngineBench:
    """Measure decode by batch and context, prefill by length, and latency under requests that arrive at random.

    Lengths are in tokens, `rate` in requests/s; prompts are pieces of a text, which `texts.read_text` finds by its name
    or path. Raises UsageError where the model's context is too short, ModelError, EngineError.
    """
    if rate is not None and not rate > 0:
        raise UsageError(f"--rate {rate}: expected more than 0")
    check_choices(options)
    longest = max(*(prefill + 1 for prefill in prefills), *(one + pace.room for one in contexts), prompt + answer)
    _check_length(model, longest)
    given = {"model": str(model), "context_length": longest, "max_running_requests": max(64, *batches),
             "max_batch_tokens": max(1024, *batches), **options}  # fmt: skip
    task = BenchTask(
        options=given, tokens=_tokens(model, text, progress), batches=tuple(batches), contexts=tuple(contexts),
        prefills=tuple(prefills), rate=rate, requests=requests, prompt=prompt, answer=answer, pace=pace,
    )  # fmt: skip
    return EngineBench(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        model=model.name,
        cpu=cpu_name(),
        cpus=len(os.sched_getaffinity(0)),
        options=options,
        measured=run_worker(_WORKER, task, Measured),
    )


def check_choices(options: Mapping[str, Any]) -> None:
    """Raise UsageError for a word that the engine does not know."""
    hints = get_type_hints(EngineOptions)
    for name, value in options.items():
        valid = get_args(hints[name]) if get_origin(hints[name]) is Literal else ()
        if valid and value not in valid:
            raise UsageError(f"--{name.replace('_', '-')} {value!r}: expected one of {', '.join(valid)}")


def numbers(option: str, text: str) -> tuple[int, ...]:
    """The numbers of a list with commas, such as "1,8,64". Raises UsageError that names the option."""
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) for part in parts):
        raise UsageError(f"{option} {text!r}: expected numbers of 1 or more, such as 1,8,64")
    return tuple(int(part) for part in parts)


def _check_length(model: Path, longest: int) -> None:
    from ....quant.checkpoint.config import read_config

    most = read_config(model).context_length
    if longest > most:
        raise UsageError(f"{longest} tokens: the model has {most} positions; ask for shorter ones")


def _tokens(model: Path, name: str, progress: Progress) -> tuple[int, ...]:
    """The beginning of a text, in the model's tokens."""
    from ....nodes.native.tokenizer import Tokenizer
    from ....quant.texts import read_text

    text = read_text(name, progress)[: _TEXT_TOKENS * _CHARACTERS]
    return tuple(Tokenizer(model).encode(text, add_special_tokens=False)[:_TEXT_TOKENS])
