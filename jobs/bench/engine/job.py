"""`slurminfer bench engine`: how fast the native engine computes a model on this machine, and how close to its memory.

Measured in a process of its own, see worker.py.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from rich.console import Console
from rich.table import Table

from ....core.errors import CommandError, EngineError, UsageError
from ....core.files import write_atomic
from ....core.process import run
from ....nodes.native.options import EngineOptions
from ....quant.progress import Progress, silent
from ...evaluate.evaluate import cpu_name
from .worker import ROOM, BenchTask, Decode, Load, Measured

BATCHES, CONTEXTS, PREFILLS = (1, 8, 64), (128, 1024), (512, 2048)
_TEXT = "wiki"
_TEXT_TOKENS = 20_000
_CHARACTERS = 8  # of a token, at most, on average
_TIMEOUT_S = 6 * 3600.0
_MIB = 1 << 20
_out = Console(highlight=False, soft_wrap=True)


class EngineBench(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints."""

    date: str
    model: str
    cpu: str
    cpus: int
    options: dict[str, Any]
    measured: Measured

    def roofline(self, point: Decode) -> float:
        """The share of the memory bandwidth that a decode step reaches, by the weights and the KV cache it reads."""
        read = self.measured.weight_bytes + point.batch * point.context * self.measured.kv_bytes_per_token
        return read / point.step_s / self.measured.bandwidth


def bench(
    model: Path,
    options: dict[str, Any],
    *,
    batches: Sequence[int] = BATCHES,
    contexts: Sequence[int] = CONTEXTS,
    prefills: Sequence[int] = PREFILLS,
    rate: float | None = None,
    requests: int = 32,
    prompt: int = 128,
    answer: int = 64,
    progress: Progress = silent,
) -> EngineBench:
    """Measure decode by batch and context, prefill by length, and latency under requests that arrive at random.

    Raises UsageError where the model's context is too short, ModelError, EngineError.
    """
    from ....nodes.native.tokenizer import Tokenizer
    from ....quant.checkpoint.config import read_config
    from ....quant.texts import read_text

    most = read_config(model).max_position_embeddings
    longest = max(*(prefill + 1 for prefill in prefills), *(context + ROOM for context in contexts), prompt + answer)
    if rate is not None and not rate > 0:
        raise UsageError(f"--rate {rate}: expected more than 0")
    check_choices(options)
    if longest > most:
        raise UsageError(f"{longest} tokens: the model has max_position_embeddings = {most}; ask for shorter ones")
    text = read_text(_TEXT, progress)[: _TEXT_TOKENS * _CHARACTERS]
    tokens = Tokenizer(model).encode(text, add_special_tokens=False)[:_TEXT_TOKENS]
    given = {"model": str(model), "context_length": longest, "max_running_requests": max(64, *batches),
             "max_batch_tokens": max(1024, *batches), **options}  # fmt: skip
    task = BenchTask(
        options=given, tokens=tuple(tokens), batches=tuple(batches), contexts=tuple(contexts),
        prefills=tuple(prefills), rate=rate, requests=requests, prompt=prompt, answer=answer,
    )  # fmt: skip
    return EngineBench(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        model=model.name,
        cpu=cpu_name(),
        cpus=len(os.sched_getaffinity(0)),
        options=options,
        measured=_measured(task),
    )


def check_choices(options: Mapping[str, Any]) -> None:
    """Raise UsageError for a word that the engine does not know."""
    hints = get_type_hints(EngineOptions)
    for name, value in options.items():
        valid = get_args(hints[name]) if get_origin(hints[name]) is Literal else ()
        if valid and value not in valid:
            raise UsageError(f"--{name.replace('_', '-')} {value!r}: expected one of {', '.join(valid)}")


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Of "1,8,64". Raises UsageError."""
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) for part in parts):
        raise UsageError(f"{option} {text!r}: expected numbers of 1 or more, such as 1,8,64")
    return tuple(int(part) for part in parts)


def _measured(task: BenchTask) -> Measured:
    argv = [sys.executable, "-m", "slurminfer.jobs.bench.engine.worker"]
    try:
        said = run(argv, stdin=msgspec.json.encode(task).decode(), timeout_s=_TIMEOUT_S)
    except CommandError as error:
        lines = error.stderr.splitlines()
        raise EngineError(lines[-1].removeprefix("error: ") if lines else str(error)) from error
    return msgspec.json.decode(said, type=Measured)


def report(found: EngineBench, as_json: bool, page: Path | None, file: Path | None) -> None:
    """As tables or as JSON; the same JSON into `file` and a picture into `page`, if asked for."""
    encoded = msgspec.json.format(msgspec.json.encode(found), indent=2).decode()
    if file is not None:
        write_atomic(file, encoded + "\n")
    if page is not None:
        from .page import draw

        draw(found, page)
    if as_json:
        print(encoded)
        return
    seen = found.measured
    how = "compiled library" if seen.compiled else "PyTorch's operations"
    _out.print(f"[bold]{found.model}[/bold] on {found.cpu}, {found.cpus} CPUs: {how}, {seen.dtype}", markup=True)
    table = Table(box=None, pad_edge=False)
    for name in ("", "tokens/s", "ms a step", "of memory bandwidth"):
        table.add_column(name, justify="right" if name else "left")
    for point in seen.decode:
        share = f"{found.roofline(point):.0%}" if seen.weight_bytes else ""
        name = f"decode, batch {point.batch}, context {point.context}"
        table.add_row(name, f"{point.tokens_per_s:.1f}", f"{1000 * point.step_s:.2f}", share)
    for prompt in seen.prefill:
        table.add_row(f"prefill, {prompt.tokens} tokens", f"{prompt.tokens_per_s:.0f}", f"{1000 * prompt.seconds:.1f}")
    _out.print(table)
    _out.print(_described(seen.load), markup=False)
    _out.print(
        f"loaded in {seen.load_s:.1f} s; memory at its peak {seen.peak_bytes / _MIB:.0f} MiB; a token takes "
        f"{seen.kv_bytes_per_token} bytes of KV cache; {seen.bandwidth / 1e9:.1f} GB/s of memory",
        markup=False,
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The least value that so many of them are not above; 0 if there is none."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)] if values else 0.0


def _described(load: Load) -> str:
    def both(values: Sequence[float]) -> str:
        return f"{1000 * quantile(values, 0.5):.0f} / {1000 * quantile(values, 0.95):.0f} ms"

    return (
        f"{len(load.ttft_s)} requests at {load.rate:.2f} a second: {load.tokens_per_s:.1f} tokens/s, first token after "
        f"{both(load.ttft_s)}, then one every {both(load.itl_s)} (median / 95th percentile)"
    )
