"""An engine in a cgroup of its own, as Slurm gives one to a job, with real memory pressure."""

import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from slurminfer.quant.models import resolve

pytestmark = [pytest.mark.process, pytest.mark.slow]

LIMIT = 1200 << 20
ROOT = Path("/sys/fs/cgroup")
NAMES = {  # of the limit, of what says whether the kernel has killed, by version of cgroups
    1: ("memory.limit_in_bytes", "memory.oom_control"),
    2: ("memory.max", "memory.events"),
}


@pytest.fixture
def cgroup() -> Iterator[tuple[Path, int]]:
    """A cgroup of LIMIT bytes and its version."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()]
    first = next((ROOT / "memory" / path.lstrip("/") for _, names, path in lines if "memory" in names.split(",")), None)
    version = 1 if first else 2
    parent = first or ROOT / next((path.lstrip("/") for _, names, path in lines if not names), "")
    place = parent / f"slurminfer-test-{os.getpid()}"
    try:
        place.mkdir()
        (place / NAMES[version][0]).write_text(str(LIMIT))
    except OSError as error:
        with suppress(OSError):
            place.rmdir()
        pytest.skip(f"cannot limit memory here: {error}")
    yield place, version
    place.rmdir()


def test_no_mix_of_requests_takes_more_than_the_job_has(cgroup, serving):
    """The KV cache is as large as the limit lets it be, and is filled: what does not fit waits."""
    place, version = cgroup
    enter = ["sh", "-c", f'echo $$ > {place}/cgroup.procs && exec "$@"', "sh"]
    chosen, model = random.Random(0), str(resolve("demo"))
    prompts = [chosen.choices(range(1000, 40000), k=chosen.choice((3, 300, 1500))) for _ in range(40)]

    def ask(prompt: list[int]) -> int:
        client, more = server.client().with_options(timeout=300), {"ignore_eos": True}
        answer = client.completions.create(model="demo", prompt=prompt, max_tokens=40, logprobs=5, extra_body=more)
        assert answer.usage is not None
        return answer.usage.completion_tokens

    arguments = ("--model", model, "--served-model-name", "demo", "--context-length", "2048")
    with serving(*arguments, wrapper=enter) as server:
        tokens = server.metric("kv_blocks_total") * 16
        assert 2048 <= tokens < sum(map(len, prompts)), "the limit has no part in this"
        with ThreadPoolExecutor(len(prompts)) as pool:
            assert list(pool.map(ask, prompts)) == [40] * len(prompts)
        assert server.metric("kv_blocks_used") == 0
        killed = (place / NAMES[version][1]).read_text().split()
        assert killed[killed.index("oom_kill") + 1] == "0"
