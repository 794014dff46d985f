"""An engine in a cgroup of its own, as Slurm gives one to a job, with real memory pressure."""

import random
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from slurminfer.quant.models import resolve

from ....support.cgroup import Cgroup, limited_cgroup
from ....support.random_models import write_random_model

pytestmark = [pytest.mark.process, pytest.mark.slow]

LIMIT = 640 << 20
# Steps and logits take as much memory as the demo model's: vocabulary and MLP are equal. Few layers with wide keys and
# values give the KV cache as much to hold for each token at a fifth of the computing.
SHAPE = {
    "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 4, "head_dim": 128,
    "num_attention_heads": 9, "num_key_value_heads": 9, "max_position_embeddings": 2048, "tie_word_embeddings": True,
    "initializer_range": 0.2,
}  # fmt: skip


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    with limited_cgroup(LIMIT) as cgroup:
        yield cgroup


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A random model with the demo model's tokenizer."""
    write_random_model(tmp_path, "llama", SHAPE)
    for file in resolve("demo").glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    return str(tmp_path)


def test_no_mix_of_requests_takes_more_than_the_job_has(cgroup, serving, model):
    """The KV cache is as large as the limit lets it be, and is filled: what does not fit waits."""
    enter = ["sh", "-c", f'echo $$ > {cgroup.procs} && exec "$@"', "sh"]
    chosen = random.Random(0)
    prompts = [chosen.choices(range(1000, 40000), k=chosen.choice((3, 300, 1500))) for _ in range(24)]

    def ask(prompt: list[int]) -> int:
        client, more = server.client().with_options(timeout=300), {"ignore_eos": True}
        echo = len(prompt) == 300
        answer = client.completions.create(
            model="demo", prompt=prompt, max_tokens=24, logprobs=5, echo=echo, extra_body=more
        )
        assert answer.usage is not None
        return answer.usage.completion_tokens

    arguments = ("--model", model, "--served-model-name", "demo", "--context-length", "2048")
    with serving(*arguments, wrapper=enter) as server:
        tokens = server.metric("kv_blocks_total") * 16
        assert 2048 <= tokens < sum(map(len, prompts)), "the limit has no part in this"
        with ThreadPoolExecutor(len(prompts)) as pool:
            assert list(pool.map(ask, prompts)) == [24] * len(prompts)
        assert server.metric("kv_blocks_used") == 0
        assert cgroup.kills == 0
