"""Counts of tokens: by /tokenize where the engine makes the same prompt there, else by an answer of one token."""

import base64
import json

import anthropic
import openai
import pytest

from slurminfer.router.relay.surfaces.counting import CountTranslation
from slurminfer.router.relay.surfaces.translation import TranslationError

HI = [{"role": "user", "content": "Hi"}]
TOOL = {"name": "look", "description": "look around", "input_schema": {"type": "object"}}
IMAGE = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(b"png").decode()}
IMAGE_MESSAGE = [{"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image", "source": IMAGE}]}]
TOKENIZE, CHAT = "/tokenize", "/v1/chat/completions"


async def count(asked):
    if asked.target == TOKENIZE:
        await asked.whole({"count": 9, "max_model_len": 100, "tokens": [1] * 9, "token_strs": None})
    else:
        await asked.answer()  # which says that its prompt has 7 tokens


@pytest.fixture
def messages(relay):
    with anthropic.Anthropic(base_url=str(relay.http.base_url), api_key="key", max_retries=0) as client:
        yield client.messages


@pytest.fixture
def responses(relay):
    with openai.OpenAI(base_url=f"{relay.http.base_url}/v1", api_key="key", max_retries=0) as client:
        yield client.responses


@pytest.mark.parametrize("engine", ["native", "vllm"])
def test_engines_that_tokenize_chats_compute_nothing(relay, messages, engine):
    stub = relay.add("w-0", count, engine=engine)
    told = {"tools": [TOOL], "system": "You look.", "thinking": {"type": "disabled"}, "model": "m", "messages": HI}
    assert messages.count_tokens(**told).input_tokens == 9
    asked = stub.asked[-1]
    assert asked.target == TOKENIZE and "max_tokens" not in asked.body
    assert asked.body["messages"] == [{"role": "system", "content": "You look."}, *HI]
    assert asked.body["tools"][0]["function"]["name"] == "look"
    assert asked.body["chat_template_kwargs"] == {"enable_thinking": False, "thinking": False}


def test_a_count_takes_a_request_and_no_tokens(relay, messages):
    relay.add("w-0", count, engine="native")
    messages.count_tokens(model="m", messages=HI)
    report = relay.report()
    assert report.counters.requests == {("/v1/messages/count_tokens", 200): 1}
    used = report.usage["one"]
    assert (used.requests, used.prompt_tokens, used.generated_tokens) == (1, 0, 0)


@pytest.mark.parametrize(
    ("engines", "told"),
    [
        (["sglang"], {}),
        (["native", "sglang"], {}),
        (["vllm"], {"messages": IMAGE_MESSAGE}),
        (["vllm"], {"model": "openai/gpt-oss-20b"}),
    ],
)
def test_other_counts_are_of_an_answer_of_one_token(relay, messages, engines, told):
    told = {"model": "m", "messages": HI, **told}
    stubs = [relay.add(f"w-{place}", count, engine=engine, model=told["model"]) for place, engine in enumerate(engines)]
    assert messages.count_tokens(**told).input_tokens == 7
    [asked] = [asked for stub in stubs for asked in stub.asked]
    assert (asked.target, asked.body["max_tokens"], "stream" in asked.body) == (CHAT, 1, False)


def test_engines_of_other_models_do_not_matter(relay, messages):
    relay.add("w-0", count, engine="native")
    relay.add("w-1", count, engine="sglang", model="other")
    assert messages.count_tokens(model="m", messages=HI).input_tokens == 9


@pytest.mark.parametrize(
    ("engine", "effort", "counted", "target"),
    [
        ("native", None, 9, TOKENIZE),
        ("native", "low", 9, TOKENIZE),
        ("vllm", None, 9, TOKENIZE),
        ("vllm", "low", 7, CHAT),
        ("sglang", None, 7, CHAT),
    ],
)
def test_requests_for_responses_are_counted_too(relay, responses, engine, effort, counted, target):
    stub = relay.add("w-0", count, engine=engine)
    told = {"reasoning": {"effort": effort}} if effort else {}
    found = responses.input_tokens.count(model="m", input="Hi", instructions="Be kind.", **told)
    assert (found.object, found.input_tokens) == ("response.input_tokens", counted)
    asked = stub.asked[-1]
    assert asked.target == target
    assert asked.body["messages"] == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    assert asked.body.get("reasoning_effort") == effort


def test_the_effort_is_part_of_the_prompt(relay):
    stub = relay.add("w-0", count, engine="native")
    body = {"model": "m", "messages": HI, "output_config": {"effort": "low"}}
    assert relay.http.post("/v1/messages/count_tokens", json=body).json() == {"input_tokens": 9}
    assert stub.asked[-1].body["chat_template_kwargs"] == {"reasoning_effort": "low"}


def test_what_an_engine_refuses_reads_as_in_the_clients_api(relay, messages):
    async def refuse(asked):
        words = "This model's maximum context length is 8 tokens. However, your request has 9 input tokens."
        await asked.whole({"error": {"message": words, "type": "BadRequestError", "code": 400}}, 400)

    relay.add("w-0", refuse, engine="native")
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long: 9 tokens > 8 maximum"):
        messages.count_tokens(model="m", messages=HI)


@pytest.mark.parametrize(
    ("engine", "answer", "missing"),
    [
        ("native", {}, "count"),
        ("native", {"count": "9"}, "count"),
        ("native", {"count": 0}, "count"),
        ("sglang", {"choices": []}, "usage"),
        ("sglang", {"usage": {"prompt_tokens": 0}}, "usage"),
    ],
)
def test_an_answer_without_a_count_is_none(engine, answer, missing):
    counting = CountTranslation({"model": "m", "messages": HI, "max_tokens": 1}, {}, lambda model: [engine])
    assert ("max_tokens" in json.loads(counting.body)) == (engine == "sglang")
    with pytest.raises(TranslationError, match=missing):
        counting.whole(answer)
