"""Speculative decoding against plain decoding, prompt by prompt in turns: `python -m benchmarks.engine.speculative`.

    copy     prompts that ask for their own text back: what prompt lookup is for
    chat     questions at temperature 1, whose answers repeat little: guesses cannot win, and should not lose
    story    TinyLlama-1.1B in 4 bits with stories15M as its draft, on stories

Speed is that of decoding, without the prompt. Both must say the same, token for token, or it ends with an error.
"""

import gc
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slurminfer.nodes.native.engine.core import EngineCore
from slurminfer.nodes.native.engine.request import Request, SamplingParams
from slurminfer.nodes.native.model.loading import load_draft, load_model
from slurminfer.nodes.native.model.runner import Runner
from slurminfer.nodes.native.options import EngineOptions, Speculative
from slurminfer.nodes.native.tokenizer import Tokenizer
from slurminfer.quant.texts import read_text

_TOKENS, _ROUNDS = 128, 5
_CONTEXT = 1024


class Pair:
    """One model, decoding without guesses and with them."""

    def __init__(self, model: Path, method: Speculative, draft: Path | None = None) -> None:
        plain = EngineOptions(model=model, kv_cache_gib=1, context_length=_CONTEXT)
        guessing = EngineOptions(
            model=model, kv_cache_gib=1, context_length=_CONTEXT, speculative=method, draft_model=draft
        )
        self.tokenizer = Tokenizer(model)
        runner: Runner = load_model(guessing)
        self._cores = {
            "plain": EngineCore(runner, plain),
            "guessing": EngineCore(runner, guessing, load_draft(guessing, runner) if draft else None),
        }
        self._count = 0

    def compare(self, prompts: Sequence[str], temperature: float) -> dict[str, Any]:
        """Tokens/s of both, medians over rounds, and the median ratio of a round."""
        encoded = [self.tokenizer.encode(prompt, add_special_tokens=True) for prompt in prompts]
        rounds: list[dict[str, float]] = []
        guessed = -self._stats()[0], -self._stats()[1]
        for number in range(_ROUNDS + 1):
            seconds, tokens = dict.fromkeys(self._cores, 0.0), 0
            for seed, prompt in enumerate(encoded):
                said = {}
                for name, core in self._cores.items():
                    said[name], took = self._decode(core, prompt, temperature, seed)
                    seconds[name] += took
                if said["plain"] != said["guessing"]:
                    raise SystemExit(f"with guesses other tokens come out: {said}")
                tokens += len(said["plain"]) - 1
            if number:  # the first warms up, and learns what rows cost
                rounds.append({name: tokens / value for name, value in seconds.items()})
        now = self._stats()
        return {
            "plain": statistics.median(one["plain"] for one in rounds),
            "guessing": statistics.median(one["guessing"] for one in rounds),
            "speedup": statistics.median(one["guessing"] / one["plain"] for one in rounds),
            "guessed": now[0] + guessed[0],
            "accepted": now[1] + guessed[1],
            "rounds": rounds,
        }

    def _decode(self, core: EngineCore, prompt: list[int], temperature: float, seed: int) -> tuple[list[int], float]:
        """Tokens, and the seconds from the first one on."""
        self._count += 1
        params = SamplingParams(max_tokens=_TOKENS, temperature=temperature, seed=seed)
        request = Request(str(self._count), prompt, params)
        core.add(request)
        while not request.generated:
            core.step()
        began = time.perf_counter()
        while core.busy:
            core.step()
        return request.tokens[len(prompt) :], time.perf_counter() - began

    def _stats(self) -> tuple[int, int]:
        stats = self._cores["guessing"].stats()
        return stats.speculative_draft_tokens, stats.speculative_accepted_tokens


def copy_prompts(count: int = 6) -> list[str]:
    """Prompts that ask for their own text back."""
    text = read_text("wiki")
    pieces = [text[start : start + 700] for start in range(0, 700 * count, 700)]
    return [
        f"<|im_start|>user\nRepeat this text:\n{piece}<|im_end|>\n<|im_start|>assistant\n{piece[:40]}"
        for piece in pieces
    ]


def chat_prompts(questions: Path, count: int = 6) -> list[str]:
    """The first questions of a file of OpenAI batch lines."""
    asked = [
        json.loads(line)["messages"][0]["content"]
        for line in questions.read_text(encoding="utf-8").splitlines()[:count]
    ]
    return [f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n" for question in asked]


def story_prompts(count: int = 6) -> list[str]:
    """Beginnings of stories."""
    stories = read_text("tiny").split("Once upon a time")[1:]
    return ["Once upon a time" + story[:300] for story in stories[:count]]


def measure(small: Path, questions: Path, target: Path, draft: Path) -> dict[str, Any]:
    """`small`: SmolLM2 in 4 bits; `target` and `draft`: TinyLlama and stories15M."""
    ngram = Pair(small, "ngram")
    gc.collect()
    gc.freeze()
    found = {
        "copy": ngram.compare(copy_prompts(), 0.0),
        "chat": ngram.compare(chat_prompts(questions), 1.0),
    }
    del ngram
    pair = Pair(target, "draft", draft)
    gc.freeze()
    return found | {"story": pair.compare(story_prompts(), 0.0)}
