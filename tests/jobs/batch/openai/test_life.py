"""A batch of OpenAI's API from its upload to its output, by OpenAI's own client."""

import httpx
import openai
import pytest

from slurminfer.router.tenants.key_store import KeyStore

from .conftest import CHAT, row


def test_a_batch_is_done_and_its_output_read(service, eventually):
    batch = service.create(*(row(f"r{n}", f"question {n}") for n in range(20)), metadata={"course": "physics"})
    assert (batch.status, batch.endpoint, batch.metadata) == ("validating", CHAT, {"course": "physics"})
    assert batch.expires_at == batch.created_at + 24 * 3600
    done = service.until(batch.id, "completed", "failed")
    assert done.status == "completed", done.errors
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (20, 20, 0)
    assert done.model == "stub-model" and done.error_file_id is None and done.errors is None
    assert done.created_at <= done.in_progress_at <= done.finalizing_at <= done.completed_at
    lines = service.lines(done.output_file_id)
    assert [line["custom_id"] for line in lines] == [f"r{n}" for n in range(20)]
    assert len({line["id"] for line in lines}) == 20
    for line in lines:
        assert line["error"] is None and line["response"]["status_code"] == 200
        assert line["response"]["body"]["choices"][0]["message"]["content"] == "Hello from the stub"
    file = service.client.files.retrieve(done.output_file_id)
    assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_output.jsonl")
    headers = service.stub.requests[-1][1]
    assert headers["x-priority"] == "batch" and "x-slurminfer-on-behalf-of" not in headers
    folder = service.store.folder(batch.id)
    eventually(lambda: {path.name for path in folder.iterdir()} == {"request.json", "state.json"})


def test_tokens_of_all_answers_are_counted(service):
    service.stub.usage = {
        "prompt_tokens": 7, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 3},
        "prompt_tokens_details": {"cached_tokens": 2},
    }  # fmt: skip
    used = service.until(service.create(row("a"), row("b")).id, "completed", "failed").usage
    assert (used.input_tokens, used.output_tokens, used.total_tokens) == (14, 10, 24)
    assert (used.input_tokens_details.cached_tokens, used.output_tokens_details.reasoning_tokens) == (4, 6)


def test_requests_that_the_engine_refuses_are_in_the_error_file(service):
    service.stub.status, service.stub.error = 400, {"error": {"message": "too long"}}
    done = service.until(service.create(row("a"), row("b")).id, "completed", "failed")
    assert done.status == "completed" and done.output_file_id is None
    assert (done.request_counts.completed, done.request_counts.failed) == (0, 2)
    for line in service.lines(done.error_file_id):
        assert line["response"]["status_code"] == 400 and line["error"] is None
        assert "too long" in line["response"]["body"]["error"]["message"]


def test_requests_count_for_their_tenant_and_ids_are_theirs_alone(service, eventually):
    key = KeyStore(service.run).add("course")
    client = openai.OpenAI(base_url=f"{service.deployment.url}/v1", api_key=key, max_retries=0, timeout=20)
    headers = {"X-Api-Key": key}
    eventually(lambda: httpx.get(f"{service.deployment.url}/v1/models", headers=headers).status_code == 200)
    with client:
        batch = service.create(row("a"), row("b"), client=client)
        done = service.until(batch.id, "completed", client=client)
        assert [found.id for found in client.batches.list()] == [batch.id]
    for ask in (service.client.batches.retrieve, service.client.batches.cancel):
        with pytest.raises(openai.NotFoundError):
            ask(batch.id)
    with pytest.raises(openai.NotFoundError):
        service.client.files.content(done.output_file_id)
    assert [found.id for found in service.client.batches.list()] == []

    def used():
        found = service.deployment.http.get("/tenants").json()["tenants"]
        return {one["name"]: one["requests"] for one in found}

    eventually(lambda: used().get("course") == 2)
    assert used().get("owner", 0) == 0
