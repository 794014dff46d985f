"""Log-probabilities of prompts by models of several processes: those of one process."""

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.process, pytest.mark.slow]

CHOOSE = random.Random(2)
PROMPTS = [CHOOSE.choices(range(5, 320), k=length) for length in (700, 2, 330, 17)]


def _logprobs(url: str) -> list[Any]:
    """Of all prompts, asked at once."""

    def ask(prompt: list[int]) -> Any:
        body = {"model": "tiny", "prompt": prompt, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
        answer = httpx.post(f"{url}/v1/completions", json=body, timeout=120)
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["logprobs"]["token_logprobs"]

    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        return list(pool.map(ask, PROMPTS))


@pytest.mark.parametrize("ranks", ["--tensor-parallel", "--pipeline-parallel", "--sequence-parallel"])
def test_they_are_those_of_one_process(server, serving, model_directory, ranks):
    model = ("--model", str(model_directory), "--dtype", "float32", "--kv-cache-gib", "0.05")
    with serving(*model, "--max-batch-tokens", "256", ranks, "2") as two:
        found = _logprobs(two.url)
    for prompt, one, other in zip(PROMPTS, _logprobs(server.url), found, strict=True):
        assert len(one) == len(other) == len(prompt) + 1
        assert one[0] is other[0] is None
        assert other[1:] == pytest.approx(one[1:], abs=1e-3)
