"""Embeddings on this machine: a decoder without lm_head behind the router, one by one and as batches."""

import io
import json

import openai
import pytest
import tokenizers
import torch

from ..support.embedding_model import expected, write_embedding_model
from ..support.waiting import eventually

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.network]

SPEC = """
name = "embed"
[model]
path = "{model}"
name = "small"
[[pool]]
name = "cpu"
workers = 2
extra_args = ["--dtype", "float32"]
[router]
port = 0
"""
TEXTS = ["The quick brown fox", "jumps", "over the lazy dog. " * 10]


@pytest.fixture
def write_spec(tmp_path):
    def write(model):
        path = tmp_path / "spec.toml"
        path.write_text(SPEC.format(model=model), encoding="utf-8")
        return path

    return write


def check(model, text, vector):
    ids = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json")).encode(text).ids
    torch.testing.assert_close(torch.tensor(vector), expected(model, ids, "mean"), atol=1e-4, rtol=0)


def test_embeddings_through_the_router(user, write_spec, tmp_path):
    model = write_embedding_model(tmp_path / "model", pooling="mean", bare=True)
    user.ok("serve", write_spec(model), "--local", "--wait")
    client = user.client("embed")
    answer = client.embeddings.create(model="small", input=TEXTS)
    for text, item in zip(TEXTS, answer.data, strict=True):
        check(model, text, item.embedding)
    assert answer.usage.total_tokens > 0
    with pytest.raises(openai.BadRequestError, match=r"input\[1\]"):
        client.embeddings.create(model="small", input=["a", ""])
    with pytest.raises(openai.BadRequestError, match="generates no text"):
        client.completions.create(model="small", prompt="a")

    lines = [
        {"custom_id": f"r-{i}", "method": "POST", "url": "/v1/embeddings", "body": {"model": "small", "input": text}}
        for i, text in enumerate(TEXTS)
    ]
    data = "".join(json.dumps(line) + "\n" for line in lines)
    file = client.files.create(file=("in.jsonl", io.BytesIO(data.encode())), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
    eventually(lambda: client.batches.retrieve(batch.id).status in ("completed", "failed"), "its end", timeout_s=120)
    done = client.batches.retrieve(batch.id)
    assert done.status == "completed", done.errors
    answers = map(json.loads, client.files.content(done.output_file_id).text.splitlines())
    for found in answers:
        text = TEXTS[int(found["custom_id"].removeprefix("r-"))]
        check(model, text, found["response"]["body"]["data"][0]["embedding"])

    (tmp_path / "rows.jsonl").write_text(data, encoding="utf-8")
    user.ok("batch", tmp_path / "rows.jsonl", tmp_path / "out.jsonl", "--run", "embed")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(rows) == len(TEXTS)
    for row in rows:
        text = TEXTS[int(row["custom_id"].removeprefix("r-"))]
        check(model, text, row["response"]["body"]["data"][0]["embedding"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architectures": ["BertModel"]}, "architecture BertModel is an encoder"),
        ({"is_causal": False}, "is_causal = false"),
        ({"matryoshka_dimensions": "all"}, "matryoshka_dimensions = 'all'"),
    ],
)
def test_what_the_engine_does_not_compute_is_said_before_anything_starts(user, write_spec, tmp_path, change, said):
    model = write_embedding_model(tmp_path / "model", config=change)
    done = user.slurminfer("serve", write_spec(model), "--local")
    assert done.returncode != 0
    assert said in done.stderr
    assert not (user.home / "runs" / "embed").exists()
