"""Deployments of one pool that a test starts, and what they say."""

from pathlib import Path
from typing import Any

from openai.types import CompletionChoice

from slurminfer.core.errors import BatchError
from slurminfer.jobs.batch.batch import ledger_of
from slurminfer.jobs.batch.ledger.look import look

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


def answered(output: Path) -> int:
    """How many rows of a batch have an answer by now; 0 before it has begun. A command would take CPU time."""
    try:
        return look(ledger_of(output)).counts.answered
    except BatchError:
        return 0


def ended(user: User, name: str, worker: str) -> dict[str, Any]:
    """What status says of a worker whose job has ended, be it that the controller has noted that already or not.

    Empty if it has not ended.
    """
    view = user.status(name)
    found: dict[str, dict[str, Any]] = {one["id"]: one for pool in view["pools"] for one in pool["ended"]}
    gone = [one for one in view["workers"] if one["scheduler"] not in ("RUNNING", "COMPLETING", "PENDING")]
    return ({one["id"]: one for one in gone} | found).get(worker, {})


def reason_of_failure(user: User, name: str, worker: str = "w-0") -> str:
    """What is said of a worker, once its job has failed by its own fault."""
    view = eventually(lambda: ended(user, name, worker), f"the job of {worker} has ended")
    assert view["scheduler"] == "FAILED" if "scheduler" in view else not view["by_scheduler"]
    return ": ".join(part for part in (view["cause"], view.get("reason")) if part)


def texts(said: list[CompletionChoice]) -> list[str]:
    return [each.text for each in said]
