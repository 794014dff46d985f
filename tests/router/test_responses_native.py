"""The responses API of a real router before real engines, by OpenAI's own client."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pydantic
import pytest

from slurminfer.core.records import WorkerRecord, WorkerState
from slurminfer.core.spec.deployment import DeploymentSpec
from slurminfer.core.spec.model import ModelSpec
from slurminfer.core.spec.pool import PoolSpec
from slurminfer.core.spec.router import RouterSpec

from ..support.chat_model import write_chat_model
from ..support.waiting import eventually

pytestmark = pytest.mark.process

ASKED: Any = {
    "model": "tiny",
    "input": "The quick",
    "temperature": 0,
    "max_output_tokens": 40,
    "extra_body": {"ignore_eos": True},
}


class Engine:
    """A native engine on a Unix socket."""

    def __init__(self, folder: Path, model: Path, number: int) -> None:
        self.socket, self.id = folder / f"{number}.sock", f"cpu-{number}"
        command = [sys.executable, "-m", "slurminfer.nodes.native", "--uds", str(self.socket), "--threads", "1"]
        command += ["--model", str(model), "--dtype", "float32", "--kv-cache-gib", "0.05"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def is_ready(self) -> bool:
        if not self.socket.exists():
            return False
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.socket)), base_url="http://engine") as client:
            return client.get("/health").status_code == 200

    def publish(self, run) -> None:
        run.write_worker(
            WorkerRecord(
                id=self.id, pool="stubs", engine="native", model="tiny", state=WorkerState.READY,
                host=socket.gethostname(), job="1", epoch=0, pid=self.process.pid, updated_at=time.time(),
                socket=str(self.socket), key="key", capacity=4,
            )
        )  # fmt: skip

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def engines(tmp_path_factory) -> Iterator[list[Engine]]:
    model = tmp_path_factory.mktemp("models") / "tiny"
    write_chat_model(model)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurminfer-test-")))
        os.chmod(folder, 0o700)
        started = [Engine(folder, model, number) for number in range(2)]
        for engine in started:
            stack.callback(engine.end)
        for engine in started:
            eventually(engine.is_ready, "ready", timeout_s=120)
        yield started


@pytest.fixture
def deployment(empty, engines):
    """A router before the engines that live."""
    spec = DeploymentSpec(name="test", model=ModelSpec(path="tiny"), pool=(PoolSpec(),), router=RouterSpec(port=0))
    empty.run.write_spec(spec)
    for engine in engines:
        if engine.process.poll() is None:
            engine.publish(empty.run)
    empty.start_router()
    eventually(lambda: all(worker["healthy"] for worker in empty.workers().values()), "workers")
    return empty


def test_a_response(deployment):
    response = deployment.openai.responses.create(**ASKED)
    chat = deployment.openai.chat.completions.create(
        model="tiny",
        temperature=0,
        max_tokens=40,
        messages=[{"role": "user", "content": "The quick"}],
        extra_body={"ignore_eos": True},
    )
    assert response.output_text == chat.choices[0].message.content
    assert response.usage.input_tokens == chat.usage.prompt_tokens
    assert response.usage.output_tokens == chat.usage.completion_tokens
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_a_conversation_is_the_same_by_its_id_and_sent_again(deployment):
    create = deployment.openai.responses.create
    first = create(**ASKED, instructions="Be.")
    by_id = create(**{**ASKED, "input": "And?"}, previous_response_id=first.id)
    items = [{"role": "user", "content": "The quick"}, *[item.to_dict() for item in first.output]]
    sent_again = create(**{**ASKED, "input": [*items, {"role": "user", "content": "And?"}]})
    assert by_id.output_text == sent_again.output_text
    assert by_id.usage.input_tokens == sent_again.usage.input_tokens > first.usage.input_tokens


def test_a_stream_of_an_asynchronous_client(deployment):
    whole = deployment.openai.responses.create(**ASKED)

    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{deployment.url}/v1", api_key=deployment.run.key()) as client:
            stream = await client.responses.create(**ASKED, stream=True)
            return [event async for event in stream]

    events = asyncio.run(ask())
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    assert events[-1].response.output_text == whole.output_text
    assert events[-1].response.usage == whole.usage


def test_log_probabilities(deployment):
    include = ["message.output_text.logprobs"]
    response = deployment.openai.responses.create(**{**ASKED, "max_output_tokens": 3}, include=include, top_logprobs=2)
    logprobs = response.output[0].content[0].logprobs
    assert len(logprobs) == 3 and all(len(one.top_logprobs) == 2 for one in logprobs)
    assert all(one.logprob == max(other.logprob for other in one.top_logprobs) for one in logprobs)


class Answer(pydantic.BaseModel):
    """What the engine is held to."""

    kind: Literal["a", "b"]
    is_sure: bool


@pytest.mark.parametrize("streams", [False, True])
def test_output_that_keeps_to_a_schema(deployment, streams):
    asked = {**ASKED, "max_output_tokens": 200, "extra_body": {}}
    responses = deployment.openai.responses
    if streams:
        with responses.stream(**asked, text_format=Answer) as stream:
            response = stream.get_final_response()
    else:
        response = responses.parse(**asked, text_format=Answer)
    assert isinstance(response.output_parsed, Answer)
    assert response.status == "completed"


@pytest.mark.parametrize("streams", [False, True])
def test_a_function_that_must_be_called(deployment, streams):
    """A random model calls nothing of itself; held to it, it does."""
    parameters = {"type": "object", "properties": {"kind": {"enum": ["a", "b"]}}, "required": ["kind"]}
    tool = {"type": "function", "name": "choose", "parameters": {**parameters, "additionalProperties": False}}
    asked = {**ASKED, "max_output_tokens": 200, "extra_body": {}, "tools": [tool], "tool_choice": "required"}
    if streams:
        with deployment.openai.responses.stream(**asked) as stream:
            response = stream.get_final_response()
    else:
        response = deployment.openai.responses.create(**asked)
    calls = [item for item in response.output if item.type == "function_call"]
    assert calls and all(call.name == "choose" for call in calls)
    assert all(json.loads(call.arguments)["kind"] in ("a", "b") for call in calls)


def test_an_error_of_the_engine_names_this_apis_fields(deployment):
    with pytest.raises(openai.BadRequestError) as caught:
        deployment.openai.responses.create(**{**ASKED, "max_output_tokens": 10_000})
    assert caught.value.param in ("input", "max_output_tokens")
    assert "max_output_tokens" in caught.value.message and "completion" not in caught.value.message
    with pytest.raises(openai.BadRequestError) as caught:
        deployment.openai.responses.create(
            **{**ASKED, "input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:x"}]}]}
        )
    assert caught.value.param == "input"


def test_a_worker_that_is_killed_in_mid_stream(deployment, engines):
    """The last test: one of the engines is gone after it. With temperature 0 the answer is what it would have been."""
    asked = {**ASKED, "max_output_tokens": 400}
    whole = deployment.openai.responses.create(**asked)
    with deployment.openai.responses.with_streaming_response.create(**asked, stream=True) as raw:
        worker = raw.headers["x-slurminfer-worker"]
        stream = raw.parse()
        events = []
        for event in stream:
            events.append(event)
            if len(events) == 10:
                next(engine for engine in engines if engine.id == worker).end()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events].count("response.created") == 1
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.output_text == whole.output_text
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    assert events[-1].response.usage.output_tokens == whole.usage.output_tokens
    assert any(engine.process.poll() is not None for engine in engines)
