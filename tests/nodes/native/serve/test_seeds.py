"""With the compiled library, a seed gives the same answer to the last bit, whatever happens to it on its way."""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from slurminfer.nodes.native.engine.core import EngineCore
from slurminfer.nodes.native.engine.request import Request, Sample, SamplingParams
from slurminfer.nodes.native.model.fused import library
from slurminfer.nodes.native.model.loading import load_model
from slurminfer.nodes.native.model.runner import Runner
from slurminfer.nodes.native.model.step import Model
from slurminfer.nodes.native.options import EngineOptions, Speculative

from ....support.fake_model import FakeModel
from ....support.quantized_models import to_awq
from ....support.random_models import SMALL, write_random_model

pytestmark = [pytest.mark.slow, pytest.mark.skipif(library.place() is None, reason="needs g++ and a CPU with AVX2")]

VOCABULARY = 199
_TOKEN_BYTES = 256  # of its keys and values
_PLENTY = 10_000
Asked = tuple[str, list[int], SamplingParams]
Answers = dict[str, list[Sample]]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=["bfloat16", "awq", "fake"])
def load(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Model]:
    """Loads a model with room for so many tokens. The fake one shows whether a difference is one of arithmetic."""
    if request.param == "fake":
        return lambda tokens: FakeModel(tokens // 8, 8, vocab_size=VOCABULARY)
    path = tmp_path_factory.mktemp(request.param)
    config = {"vocab_size": VOCABULARY, "num_hidden_layers": 2, "max_position_embeddings": 512}
    write_random_model(path, "llama", SMALL | config | {"initializer_range": 0.1})
    if request.param == "awq":
        to_awq(path)

    def load(tokens: int) -> Runner:
        gib = tokens * _TOKEN_BYTES / 2**30
        return load_model(
            EngineOptions(
                model=path, dtype="bfloat16", kernels="compiled", kv_cache_gib=gib, context_length=160, threads=1
            )
        )

    return load


def asked() -> list[Asked]:
    """Requests of one, two and eight choices, whose prompts begin alike; greedy and sampled in every way."""
    chosen = random.Random(5)
    beginning = chosen.choices(range(VOCABULARY), k=70)
    kinds: list[dict[str, Any]] = [
        {}, {"top_p": 0.9}, {"top_k": 20, "temperature": 0.7}, {"min_p": 0.05, "repetition_penalty": 1.2},
        {"top_p": 0.95, "presence_penalty": 0.6, "frequency_penalty": 0.4}, {"temperature": 0.0},
    ]  # fmt: skip
    found = []
    for number, (kind, count) in enumerate(zip(kinds, (8, 2, 1, 2, 1, 1), strict=True)):
        prompt = beginning[: chosen.choice([9, 70])] + chosen.choices(range(VOCABULARY), k=chosen.choice([1, 40]))
        for choice in range(count):
            params = SamplingParams(max_tokens=40, seed=100 * number + choice, logprobs=2, **kind)
            found.append((f"{number}.{choice}", prompt, params))
    return found


def answer(
    model: Model, requests: Sequence[Request], *, budget: int = 512, running: int = 32, method: Speculative = "none"
) -> tuple[Answers, EngineCore]:
    """The answers to requests that come one after the other."""
    options = EngineOptions(
        model=Path(), max_batch_tokens=budget, max_running_requests=running, speculative=method, draft_tokens=4
    )
    core, found = EngineCore(model, options), Answers()
    if core._speculation is not None:  # whether guesses pay is another test's matter
        core._speculation._budget.share = lambda ids, room: [4 if room > 4 * len(ids) else 0 for _ in ids]  # type: ignore[method-assign]
    waiting = list(requests)
    while waiting or core.busy:
        if waiting:
            core.add(waiting.pop(0))
        for output in core.step():
            assert output.sample is not None
            found.setdefault(output.request.id, []).append(output.sample)
    assert not core.take_failures()
    return found, core


@pytest.fixture(scope="module")
def expected(load: Callable[[int], Model]) -> Answers:
    """What each says when it is alone, without a prefix cache."""
    model, found = load(_PLENTY), Answers()
    for each in asked():
        found |= answer(model, [Request(*each)])[0]
    return found


def test_in_any_company(load: Callable[[int], Model], expected: Answers) -> None:
    model, requests = load(_PLENTY), asked()
    for seed, budget, running, method in ((1, 512, 32, "none"), (2, 16, 3, "none"), (3, 40, 8, "ngram")):
        random.Random(seed).shuffle(requests)
        found, core = answer(model, [Request(*one) for one in requests], budget=budget, running=running, method=method)  # type: ignore[arg-type]
        assert found == expected
        assert core.stats().prefix_cache_hit_tokens > 0


def test_when_preempted(load: Callable[[int], Model], expected: Answers) -> None:
    found, core = answer(load(320), [Request(*each) for each in asked()])
    assert found == expected
    assert core.stats().preemptions > 1


def test_when_it_goes_on_elsewhere(load: Callable[[int], Model], expected: Answers) -> None:
    """From the tokens that another worker has generated, few or many."""
    model, requests, chosen = load(_PLENTY), asked(), random.Random(6)
    before = {id: chosen.randrange(40) for id, _, _ in requests}
    begun = [Request(*one, [sample.token for sample in expected[one[0]][: before[one[0]]]]) for one in requests]
    found, _ = answer(model, begun)
    assert found == {id: samples[before[id] :] for id, samples in expected.items()}
