"""What other clients ask for while a stream is watched.

python -m benchmarks.api.fairness.tenants URL TENANT: asks for it again and again, until it is ended.
"""

import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx

MODEL = "m"
CONTEXT = 8192
_VOCAB = 49152
# Some ten milliseconds for each token's mask: an object of many optional properties, then a counted string.
_SLOW_PROPERTIES = 400

Body = dict[str, Any]


def _ids(count: int) -> list[int]:
    """Tokens that no prefix cache has."""
    return random.choices(range(1000, 40000), k=count)


def long_embeddings() -> tuple[str, Body]:
    return "/v1/embeddings", {"input": [_ids(8000) for _ in range(200)]}


def long_prompts() -> tuple[str, Body]:
    return "/v1/completions", {"prompt": [_ids(7500) for _ in range(100)], "max_tokens": 64}


def many_prompts() -> tuple[str, Body]:
    return "/v1/completions", {"prompt": [_ids(100) for _ in range(1024)], "max_tokens": 64}


def prompt_logprobs() -> tuple[str, Body]:
    return "/v1/completions", {"prompt": [_ids(45) for _ in range(1024)], "max_tokens": 1, "prompt_logprobs": 20}


def echo_logprobs() -> tuple[str, Body]:
    return "/v1/completions", {
        "prompt": [_ids(100) for _ in range(1024)], "max_tokens": 1, "echo": True, "logprobs": 5,
    }  # fmt: skip


def logit_bias() -> tuple[str, Body]:
    bias = {str(token): random.uniform(-1, 1) for token in range(_VOCAB)}
    return "/v1/completions", {"prompt": _ids(20), "n": 128, "max_tokens": 256, "logit_bias": bias}


def slow_grammars() -> tuple[str, Body]:
    """A grammar that no other request has."""
    properties = {f"p{random.getrandbits(32):x}": {"type": "string", "maxLength": 40} for _ in range(_SLOW_PROPERTIES)}
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return "/v1/completions", {
        "prompt": _ids(20), "n": 8, "max_tokens": 128, "temperature": 1.0,
        "structured_outputs": {"json": schema},
    }  # fmt: skip


TENANTS: dict[str, Callable[[], tuple[str, Body]]] = {
    "200 embeddings of 8,000 tokens": long_embeddings,
    "100 prompts of 7,500 tokens": long_prompts,
    "1,024 prompts": many_prompts,
    "1,024 prompts with prompt_logprobs = 20": prompt_logprobs,
    "1,024 prompts with echo and logprobs = 5": echo_logprobs,
    "n = 128 with a logit_bias of every token": logit_bias,
    "grammars of 400 properties": slow_grammars,
}


def _bodies(make: Callable[[], tuple[str, Body]]) -> Iterator[tuple[str, Body]]:
    while True:
        yield make()


def main() -> None:
    """Ask until ended. An answer that is an error is told once on standard error."""
    url, name = sys.argv[1:]
    with httpx.Client(base_url=url, timeout=None) as client:
        for path, body in _bodies(TENANTS[name]):
            answer = client.post(path, json={"model": MODEL, **body})
            print(answer.status_code, answer.text[:300] if answer.is_error else "", file=sys.stderr, flush=True)
            if answer.is_error:
                break


if __name__ == "__main__":
    main()
