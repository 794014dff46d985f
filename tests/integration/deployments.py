"""Deployments of one pool that a test starts, and what they say."""

from pathlib import Path
from typing import Any

from openai.types import CompletionChoice

from ..support.waiting import eventually
from .conftest import User

PROMPTS = ["The capital of France is", "One, two, three,", "def fibonacci(n):", "A rose is a rose. " * 60]
_SPEC = """
name = "{name}"
[model]
path = "{model}"
name = "m"
dtype = "{dtype}"
context_length = 512
[[pool]]
name = "w"
{pool}
[router]
port = 0
"""


def serve(
    user: User,
    shared: Path,
    name: str,
    pool: str,
    *words: str,
    model: str | Path = "demo",
    dtype: str = "float32",
    start_s: float = 120,
) -> None:
    """Start the deployment `name` with these lines of its pool, and further words for the command; wait for it."""
    spec = shared / f"{name}.toml"
    spec.write_text(_SPEC.format(name=name, model=model, dtype=dtype, pool=pool))
    user.ok("serve", spec, "--wait", *words, timeout_s=start_s)


def complete(
    user: User, name: str, prompts: list[str] = PROMPTS, tokens: int = 24, logprobs: int | None = None
) -> list[CompletionChoice]:
    """What the deployment says to prompts, one after the other, greedily."""
    create = user.client(name).completions.create
    said = [
        create(
            model="m", prompt=prompt, max_tokens=tokens, temperature=0, logprobs=logprobs,
            extra_body={"ignore_eos": True},
        )
        for prompt in prompts
    ]  # fmt: skip
    return [each.choices[0] for each in said]


def failed_worker(user: User, name: str) -> dict[str, Any]:
    """The status of a deployment's one worker, once its job has failed."""

    def look() -> dict[str, Any] | None:
        worker: dict[str, Any] = user.status(name)["workers"][0]
        return None if worker["scheduler"] in ("RUNNING", "COMPLETING") else worker

    worker = eventually(look, "the job has ended")
    assert worker is not None and worker["scheduler"] == "FAILED"
    return worker


def texts(said: list[CompletionChoice]) -> list[str]:
    return [each.text for each in said]
