"""Prompts longer than the memory of one rank: refused by one process, answered by two that share the tokens."""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

pytestmark = [pytest.mark.process, pytest.mark.slow]

SMALL = ("--kv-cache-gib", "0.0012")  # 2,500 of the model's 4,096 tokens
LENGTHS = (3500, 2470, 2460)  # the last two fit together, but not with all that they generate


CHOOSE = random.Random(1)
PROMPTS = [CHOOSE.choices(range(5, 320), k=length) for length in LENGTHS]


def answers(url: str, prompts: Sequence[list[int]], at_once: int = 1) -> list[str]:
    def answer(prompt: list[int]) -> str:
        body = {"model": "tiny", "prompt": prompt, "max_tokens": 60, "temperature": 0, "ignore_eos": True}
        said = httpx.post(f"{url}/v1/completions", json=body, timeout=120)
        assert said.status_code == 200, said.text
        text: str = said.json()["choices"][0]["text"]
        return text

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(answer, prompts))


def test_what_one_rank_refuses_two_answer_as_one_with_more_memory_does(serving, starting, model_directory, capfd):
    model = ("--model", str(model_directory), "--dtype", "float32")
    with serving(*model, "--kv-cache-gib", "0.01") as one:
        expected = answers(one.url, PROMPTS)
    with starting(*model, *SMALL) as one:
        assert one.process.wait(60) == 1
    said = capfd.readouterr().err
    assert "the KV cache of 0.00 GiB holds 2512 tokens, but one sequence may have 4096" in said
    assert "raise sequence_parallel" in said
    with serving(*model, *SMALL, "--sequence-parallel", "2") as two:
        assert two.metric("kv_blocks_total") == 2 * 2512 / 16
        assert answers(two.url, PROMPTS) == expected
        assert answers(two.url, PROMPTS[-1:]) == expected[-1:]
        assert two.metric("prefix_cache_hit_tokens_total") > 0
        assert two.metric("preemptions_total") == 0
        assert answers(two.url, PROMPTS, at_once=len(PROMPTS)) == expected
        assert two.metric("preemptions_total") > 0
