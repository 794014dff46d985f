"""What comes out with guesses is what comes out without: greedy and sampled, whatever guesses, in any company."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from slurminfer.core.errors import EngineError, UsageError
from slurminfer.nodes.native.engine.core import EngineCore
from slurminfer.nodes.native.engine.request import Request, SamplingParams
from slurminfer.nodes.native.model.fused import library
from slurminfer.nodes.native.model.loading import load_draft, load_model
from slurminfer.nodes.native.options import EngineOptions, Speculative

from ....support.quantized_models import to_awq
from ..model.conftest import SMALL, make_model

pytestmark = pytest.mark.slow

VOCABULARY = 199


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """A model, the same in 4 bits, and another one with the same tokenizer."""
    found = {}
    for name, variant in (("plain", "llama"), ("awq", "llama"), ("draft", "qwen2")):
        path = found[name] = tmp_path_factory.mktemp(name)
        make_model(path, variant)
        (path / "tokenizer.json").write_text(tokenizer(VOCABULARY))
    to_awq(found["awq"])
    return found


@pytest.fixture
def make_small() -> Callable[[Path, int], None]:
    def make(path: Path, vocab_size: int) -> None:
        config = SMALL | {"vocab_size": vocab_size}
        AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **config)).save_pretrained(path)

    return make


def tokenizer(size: int) -> str:
    import tokenizers

    vocabulary = {f"t{i}": i for i in range(size)}
    return tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "t0")).to_str()


def engine(model: Path, method: Speculative = "none", draft: Path | None = None, **changes: Any) -> EngineCore:
    defaults: dict[str, Any] = {"dtype": "float32", "kv_cache_gib": 0.05, "draft_tokens": 6, "threads": 1}
    options = EngineOptions(model=model, speculative=method, draft_model=draft, **(defaults | changes))
    target = load_model(options)
    core = EngineCore(target, options, load_draft(options, target) if method == "draft" else None)
    if core._speculation:  # always as many as allowed: whether they pay is another test's matter
        budget = core._speculation._budget
        budget.share = lambda ids, room: [min(6, max(room - 6 * i, 0)) for i in range(len(ids))]  # type: ignore[method-assign]
    return core


def run(core: EngineCore, requests: Sequence[Request]) -> dict[str, list[int]]:
    for request in requests:
        core.add(request)
    while core.busy:
        core.step()
    assert core.stats().kv_blocks_used == 0
    return {request.id: request.tokens[request.prompt_length :] for request in requests}


def copying(seed: int, length: int) -> list[int]:
    """Text that repeats itself in parts."""
    chosen = random.Random(seed)
    piece = chosen.choices(range(VOCABULARY), k=length)
    return piece + piece[: length // 2]


def requests(temperature: float, count: int = 50, tokens: int = 24) -> list[Request]:
    return [
        Request(str(i), copying(i, 3 + i % 30), SamplingParams(max_tokens=tokens, temperature=temperature, seed=i))
        for i in range(count)
    ]


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("method", ["ngram", "draft", "itself"])
def test_50_prompts_say_the_same_in_float32(models, method, temperature):
    draft = {"ngram": None, "draft": models["draft"], "itself": models["plain"]}[method]
    core = engine(models["plain"], "ngram" if method == "ngram" else "draft", draft)
    assert run(core, requests(temperature)) == run(engine(models["plain"]), requests(temperature))
    stats = core.stats()
    assert stats.speculative_draft_tokens > 5
    if method == "itself" and temperature == 0:  # all right, but for where a sequence ends
        assert stats.speculative_accepted_tokens > 0.9 * stats.speculative_draft_tokens


@pytest.mark.skipif(library.place() is None, reason="needs g++ and a CPU with AVX2")
@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("method", ["ngram", "draft"])
def test_the_compiled_library_says_the_same_in_bfloat16(models, method, temperature):
    changes: dict[str, Any] = {"dtype": "bfloat16", "kernels": "compiled"}
    core = engine(models["awq"], method, models["draft"] if method == "draft" else None, **changes)
    assert run(core, requests(temperature)) == run(engine(models["awq"], **changes), requests(temperature))


def test_a_guess_that_ends_a_sequence_ends_it(models):
    plain = run(engine(models["plain"]), requests(0, 1))["0"]
    params = SamplingParams(max_tokens=24, temperature=0, stop_token_ids=frozenset([plain[5]]))
    core = engine(models["plain"], "draft", models["plain"])
    found = run(core, [Request("0", copying(0, 3), params)])["0"]
    assert found == plain[: plain.index(plain[5]) + 1]


def test_penalties_count_tokens_that_were_guessed(models):
    def asked() -> list[Request]:
        params = SamplingParams(max_tokens=40, temperature=0, repetition_penalty=1.3, frequency_penalty=0.5)
        return [Request(str(i), copying(i, 8), params) for i in range(5)]

    assert run(engine(models["plain"], "ngram"), asked()) == run(engine(models["plain"]), asked())


def test_sampled_tokens_have_the_models_distribution(models):
    """Chi-square of the token after two guessed ones, over seeds of its own, against plain decoding's."""

    def tokens(core: EngineCore, first_seed: int) -> Counter[int]:
        asked = [
            Request(str(i), copying(1, 6), SamplingParams(max_tokens=3, temperature=2.0, top_k=8, seed=first_seed + i))
            for i in range(1500)
        ]
        return Counter(found[2] for found in run(core, asked).values())

    plain = tokens(engine(models["plain"]), 0)
    guessed = tokens(engine(models["plain"], "draft", models["plain"]), 100_000)
    common = [token for token, count in plain.items() if count >= 10]
    rest = [sum(c for token, c in counts.items() if token not in common) for counts in (plain, guessed)]
    pairs = [(plain[token], guessed[token]) for token in common] + ([tuple(rest)] if sum(rest) >= 10 else [])
    chi2 = sum((a - b) ** 2 / (a + b) for a, b in pairs)
    degrees = len(pairs) - 1
    assert degrees > 5
    assert chi2 < degrees + 4 * (2 * degrees) ** 0.5  # four standard deviations


def test_a_draft_with_other_tokens_is_refused(models, tmp_path):
    make_model(tmp_path, "llama")
    (tmp_path / "tokenizer.json").write_text(tokenizer(VOCABULARY - 9))
    with pytest.raises(
        EngineError, match="9 of 199 tokens have other numbers or are not there: 't190' is 190 here and n"
    ):
        engine(models["plain"], "draft", tmp_path)


def test_a_draft_with_a_smaller_vocabulary_guesses_within_it(models, tmp_path, make_small):
    make_small(tmp_path, VOCABULARY - 3)
    (tmp_path / "tokenizer.json").write_text(tokenizer(VOCABULARY - 3))
    core = engine(models["plain"], "draft", tmp_path)
    asked = [Request("0", [VOCABULARY - 1, 3, VOCABULARY - 2], SamplingParams(max_tokens=20, temperature=0))]
    again = [Request("0", [VOCABULARY - 1, 3, VOCABULARY - 2], SamplingParams(max_tokens=20, temperature=0))]
    assert run(core, asked) == run(engine(models["plain"]), again)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"draft_tokens": 0}, "draft_tokens = 0: expected 1 to 15"),
        ({"draft_tokens": 16}, "draft_tokens = 16: expected 1 to 15"),
        ({"speculative": "draft"}, "expected a draft model exactly where"),
        ({"draft_model": Path("x")}, "expected a draft model exactly where"),
    ],
)
def test_options_that_cannot_be_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        EngineOptions(model=Path("m"), **changes)
