"""Texts to tokens and back through the router: the engines' own path, no tokens of anybody's quota."""

import pytest

TEXT = {"count": 2, "max_model_len": 100, "tokens": [5, 6], "token_strs": None}


async def tokenize(asked):
    await asked.whole(TEXT if asked.target == "/tokenize" else {"prompt": asked.target})


@pytest.mark.parametrize("path", ["/v1/tokenize", "/tokenize", "/v1/v1/tokenize/"])
def test_engines_are_asked_at_their_root(relay, path):
    relay.add("w-0", tokenize)
    assert relay.http.post(path, json={"model": "m", "prompt": "a text"}).json() == TEXT


def test_tokens_become_text(relay):
    relay.add("w-0", tokenize)
    found = relay.http.post("/v1/detokenize", json={"model": "m", "tokens": [5, 6]}).json()
    assert found == {"prompt": "/detokenize"}


def test_another_worker_answers_in_place_of_one_that_is_lost(relay):
    async def drop(asked):
        asked.cut()

    relay.add("w-0", drop)
    assert relay.http.post("/v1/tokenize", json={"model": "m", "prompt": "a"}).status_code in (502, 503)
    relay.add("w-1", tokenize)
    found = [relay.http.post("/v1/tokenize", json={"model": "m", "prompt": "a", "user": str(i)}) for i in range(3)]
    assert [each.json() for each in found] == [TEXT] * 3


def test_a_request_counts_and_its_tokens_do_not(relay):
    relay.add("w-0", tokenize)
    bob = relay.add_tenant("b", name="bob", tokens_per_day=10)
    for _ in range(3):  # each has more tokens than bob has a day
        assert bob.post("/v1/tokenize", json={"model": "m", "prompt": "long " * 1000}).status_code == 200
    report = relay.report()
    used = report.usage["bob"]
    assert (used.requests, used.prompt_tokens, used.generated_tokens) == (3, 0, 0)
    assert report.counters.requests[("/v1/tokenize", 200)] == 3
    bob.close()


async def tell_tokenizer(asked):
    assert asked.method == "GET"
    await asked.whole({"eos_token": "</s>", "asked": asked.target})


@pytest.mark.parametrize("path", ["/tokenizer_info", "/v1/tokenizer_info", "/v1/tokenizer_info/"])
def test_the_tokenizer_is_the_engines(relay, path):
    stub = relay.add("w-0", tell_tokenizer)
    answer = relay.http.get(path)
    assert answer.json() == {"eos_token": "</s>", "asked": "/tokenizer_info"}
    assert answer.headers["x-slurminfer-worker"] == "w-0" and "authorization" in stub.asked[-1].headers
    assert relay.report().counters.requests == {("/v1/tokenizer_info", 200): 1}


def test_a_model_is_named_by_the_query(relay):
    relay.add("w-0", tell_tokenizer)
    relay.add("w-1", tell_tokenizer, model="org/b")
    for _ in range(3):
        assert relay.http.get("/tokenizer_info", params={"model": "org/b"}).headers["x-slurminfer-worker"] == "w-1"
    refused = relay.http.get("/tokenizer_info", params={"model": "c"})
    assert refused.status_code == 404 and refused.json()["error"]["message"].endswith("valid models: m, n, org/b")


def test_an_engine_that_does_not_tell_of_its_tokenizer(relay):
    async def unknown(asked):
        await asked.whole({"detail": "Not Found"}, 404)

    relay.add("w-0", unknown)
    refused = relay.http.get("/tokenizer_info")
    assert refused.status_code == 404
    assert refused.json()["error"]["message"].startswith(
        "GET /v1/tokenizer_info: the engine that serves this model does not have it; "
    )


def test_nobody_is_told_of_a_tokenizer_without_a_key(relay):
    stub = relay.add("w-0", tell_tokenizer)
    assert relay.http.get("/tokenizer_info", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert not stub.asked
