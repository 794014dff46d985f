"""A batch of OpenAI's API in a real Slurm: another program goes on with it where the node of its program is lost."""

import io
import json
from collections.abc import Iterator

import pytest
from openai.types import Batch

from benchmarks.fleet.cluster import Cluster

from ..support.waiting import eventually

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
SPEC = """
name = "api"
[model]
path = "demo"
name = "m"
[[pool]]
name = "w"
max_running_requests = 4
mem = "4G"
time = "30"
[router]
port = 0
"""
ROWS = 60
PATH = "/v1/chat/completions"
LEASE = "openai-batches.json"


@pytest.fixture
def cluster(cluster_user, sandbox, ordinary_user, shared) -> Iterator[Cluster]:
    """A deployment of one worker, and how to break nodes; they are whole again afterwards."""
    (shared / "api.toml").write_text(SPEC, encoding="utf-8")
    cluster_user.ok("serve", shared / "api.toml", "--wait")
    cluster = Cluster(sandbox, cluster_user.home, ordinary_user)
    yield cluster
    cluster.restore_nodes()


def line(number: int) -> bytes:
    body = {"model": "m", "max_tokens": 12, "messages": [{"role": "user", "content": f"Count from {number}."}]}
    return json.dumps({"custom_id": f"q-{number}", "method": "POST", "url": PATH, "body": body}).encode() + b"\n"


def test_another_program_on_another_node_goes_on_and_each_line_has_one_answer(cluster_user, cluster):
    client = cluster_user.client("api")
    file = client.files.create(file=("in.jsonl", io.BytesIO(b"".join(map(line, range(ROWS))))), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=PATH, completion_window="24h")

    def seen() -> Batch:
        return client.batches.retrieve(batch.id)

    def answered() -> int:
        counts = seen().request_counts
        return 0 if counts is None else counts.completed

    eventually(lambda: answered() >= 8, "lines are answered", timeout_s=120)
    first = cluster.record("api", LEASE)
    cluster.lose_node(first["host"])

    def holder() -> str:
        return str(cluster.record("api", LEASE).get("holder", first["holder"]))

    eventually(lambda: holder() != first["holder"], "another program has taken over", timeout_s=200)
    assert cluster.record("api", LEASE)["host"] != first["host"]
    client = cluster_user.client("api")  # the router has moved as well
    eventually(lambda: seen().status in ("completed", "failed"), "the batch has ended", timeout_s=200)
    done = seen()
    assert (done.status, done.error_file_id) == ("completed", None), done.errors
    answers = [json.loads(text) for text in client.files.content(done.output_file_id).text.splitlines()]
    assert [answer["custom_id"] for answer in answers] == [f"q-{number}" for number in range(ROWS)]
    assert all(answer["response"]["status_code"] == 200 for answer in answers)
