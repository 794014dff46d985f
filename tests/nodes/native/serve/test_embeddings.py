"""POST /v1/embeddings through OpenAI's client: the numbers are those of transformers, errors name field and value."""

import base64
import json
import struct
import threading

import httpx
import openai
import pytest
import tokenizers
import torch

from ....support.embedding_model import END, expected, write_embedding_model

pytestmark = [pytest.mark.process, pytest.mark.slow]

TEXTS = ["The quick brown fox", "jumps", "over the lazy dog. " * 10, "こんにちは 🎉"]
OPTIONS = ("--dtype", "float32", "--kv-cache-gib", "0.05", "--served-model-name", "small")
TOLERANCE = 1e-4


def _ids(path, text):
    return tokenizers.Tokenizer.from_file(str(path / "tokenizer.json")).encode(text).ids


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_embedding_model(tmp_path_factory.mktemp("embedding") / "last", config={"is_matryoshka": True})


@pytest.fixture(scope="module")
def embedder(model, serving):
    with serving("--model", str(model), *OPTIONS) as running:
        yield running


@pytest.fixture(scope="module")
def sdk(embedder):
    return embedder.client()


def _ask(server, **fields):
    return httpx.post(f"{server.url}/v1/embeddings", json={"model": "small", "input": "hi", **fields}, timeout=60)


def test_embeddings_through_openais_client_are_those_of_transformers(model, sdk):
    answer = sdk.embeddings.create(model="small", input=TEXTS)  # it asks for base64
    assert [item.index for item in answer.data] == [0, 1, 2, 3]
    assert {item.object for item in answer.data} == {"embedding"}
    assert (answer.object, answer.model) == ("list", "small")
    for text, item in zip(TEXTS, answer.data, strict=True):
        found = torch.tensor(item.embedding)
        torch.testing.assert_close(found, expected(model, _ids(model, text)), atol=TOLERANCE, rtol=0)
    tokens = sum(len(_ids(model, text)) for text in TEXTS)
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (tokens, tokens)


def test_an_end_token_is_added_to_text_and_not_to_ids(model, sdk):
    ids = _ids(model, TEXTS[0])
    assert tokenizers.Tokenizer.from_file(str(model / "tokenizer.json")).id_to_token(ids[-1]) == END
    of_text, of_ids = (sdk.embeddings.create(model="small", input=given) for given in (TEXTS[0], ids))
    assert of_text.data[0].embedding == of_ids.data[0].embedding
    assert of_text.usage == of_ids.usage
    without = sdk.embeddings.create(model="small", input=ids[:-1]).data[0].embedding
    found = sdk.embeddings.create(model="small", input=TEXTS[0], extra_body={"add_special_tokens": False})
    assert found.data[0].embedding == without != of_text.data[0].embedding


def test_several_lists_of_ids(model, sdk):
    lists = [_ids(model, text) for text in TEXTS]
    answer = sdk.embeddings.create(model="small", input=lists)
    alone = [sdk.embeddings.create(model="small", input=ids).data[0].embedding for ids in lists]
    for item, one in zip(answer.data, alone, strict=True):
        assert torch.tensor(item.embedding) == pytest.approx(torch.tensor(one), abs=1e-5)


def test_numbers_are_floats_by_default_and_the_same_as_base64(embedder):
    floats, packed = _ask(embedder).json(), _ask(embedder, encoding_format="base64").json()
    [numbers] = [item["embedding"] for item in floats["data"]]
    raw = base64.b64decode(packed["data"][0]["embedding"])
    assert len(numbers) == 64
    assert list(struct.unpack("<64f", raw)) == numbers
    assert floats["usage"] == packed["usage"]
    assert _ask(embedder, encoding_format="float", user="someone").json() == floats


def test_embeddings_cut_short_are_normalised_again(embedder):
    whole = torch.tensor(_ask(embedder).json()["data"][0]["embedding"])
    short = torch.tensor(_ask(embedder, dimensions=16).json()["data"][0]["embedding"])
    torch.testing.assert_close(short, torch.nn.functional.normalize(whole[:16], dim=0), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"input": ""}, "input", 'input = "": expected text that is not empty'),
        ({"input": ["a", ""]}, "input", 'input[1] = "": expected text that is not empty'),
        ({"input": []}, "input", "input = []: expected a string, a list of strings"),
        ({"input": [[1], []]}, "input", "input[1] = []: expected at least one token id"),
        ({"input": ["a", [1]]}, "input", "expected a string, a list of strings, a list of token ids"),
        ({"input": ["a", None]}, "input[1]", "input[1] = null: expected"),
        ({"input": 5}, "input", "input = 5: expected"),
        ({"input": {"a": 1}}, "input", 'input = {"a":1}: expected'),
        ({"input": [1, 320]}, "input", "input: token id 320: expected 0 to 319"),
        ({"input": [[5], [1, -1]]}, "input", "input[1]: token id -1: expected 0 to 319"),
        ({"input": ["a"] * 2049}, "input", "input has 2049 entries: expected at most 2048"),
        ({"encoding_format": "hex"}, "encoding_format", 'encoding_format = "hex": expected one of float, base64'),
        ({"dimensions": 65}, "dimensions", "dimensions = 65: expected 1 to 64"),
        ({"dimensions": 0}, "dimensions", "dimensions = 0: expected 1 to 64"),
        ({"dimensions": "8"}, "dimensions", 'dimensions = "8": expected an integer'),
        ({"temperature": 0.5}, "temperature", "temperature = 0.5: not for /v1/embeddings; leave it out"),
        ({"truncate_prompt_tokens": 5}, "truncate_prompt_tokens", "not for /v1/embeddings"),
        ({"stream": True}, "stream", "not for /v1/embeddings"),
    ],
)
def test_what_cannot_be_is_refused_by_name(embedder, fields, param, said):
    answer = _ask(embedder, **fields)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert said in error["message"]
    assert error["type"] == "invalid_request_error"


def test_another_model_and_a_missing_field(embedder):
    assert _ask(embedder, model="other").json()["error"]["code"] == "model_not_found"
    for field in ("model", "input"):
        body = {name: value for name, value in {"model": "small", "input": "a"}.items() if name != field}
        answer = httpx.post(f"{embedder.url}/v1/embeddings", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


@pytest.mark.parametrize("given", [[7] * 257, "word " * 3000])
def test_what_is_longer_than_the_context_is_told_in_openais_words(sdk, given):
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.embeddings.create(model="small", input=[given, "fine"] if isinstance(given, str) else given)
    assert refused.value.code == "context_length_exceeded"
    assert refused.value.param == "input"
    assert "This model's maximum context length is 256 tokens, but" in refused.value.message


def test_the_longest_input_fills_the_context(sdk):
    assert sdk.embeddings.create(model="small", input=[7] * 256).usage.prompt_tokens == 256


def test_a_client_that_hangs_up_frees_the_engine(embedder, wait_until):
    before = embedder.metric("prompt_tokens_total")
    inputs = [[(i * j) % 320 for j in range(250)] for i in range(2048)]
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{embedder.url}/v1/embeddings", json={"model": "small", "input": inputs}, timeout=1)
    wait_until(lambda: embedder.metric("waiting_requests") == embedder.metric("running_requests") == 0, "its end")
    assert embedder.metric("kv_blocks_used") == 0
    assert embedder.metric("prompt_tokens_total") - before < 2048 * 250, "not all were computed"


def test_many_inputs_share_steps_with_each_other_and_with_answers(embedder, sdk):
    """2,048 inputs take far fewer steps than inputs, and a completion is answered meanwhile."""
    before = embedder.metric("steps_total")
    completions = []

    def complete():
        completions.append(sdk.completions.create(model="small", prompt="a", max_tokens=5))

    other = threading.Thread(target=complete)
    other.start()
    inputs = [[(i * 7) % 320, i % 320, 5] for i in range(2048)]
    answer = sdk.embeddings.create(model="small", input=inputs)
    other.join()
    assert len(answer.data) == 2048
    assert embedder.metric("steps_total") - before < 200
    assert completions[0].usage.completion_tokens >= 1
    for i in (0, 1000, 2047):
        alone = sdk.embeddings.create(model="small", input=inputs[i]).data[0].embedding
        assert torch.tensor(answer.data[i].embedding) == pytest.approx(torch.tensor(alone), abs=1e-5)


@pytest.mark.parametrize(("pooling", "normalize"), [("mean", True), ("cls", True), ("mean", False)])
def test_poolings_of_sentence_transformers_files(tmp_path, serving, pooling, normalize):
    """Steps of 64 tokens: the longer texts come in several. The second time, their beginning is in the prefix cache."""
    prompts = {"prompts": {"query": "Find: ", "document": "Store: "}, "default_prompt_name": "query"}
    write_embedding_model(
        tmp_path, pooling=pooling, normalize=normalize, config_sentence_transformers=prompts,
        sentence_bert_config={"max_seq_length": 200, "do_lower_case": False},
    )  # fmt: skip
    with serving("--model", str(tmp_path), *OPTIONS, "--max-batch-tokens", "64") as running:
        client = running.client()
        for _ in range(2):
            answer = client.embeddings.create(model="small", input=TEXTS)
            for text, item in zip(TEXTS, answer.data, strict=True):
                wanted = expected(tmp_path, _ids(tmp_path, f"Find: {text}"), pooling, normalize=normalize)
                torch.testing.assert_close(torch.tensor(item.embedding), wanted, atol=TOLERANCE, rtol=0)
        error = _ask(running, input=[7] * 201).json()["error"]
        assert "maximum context length is 200 tokens, but 201 tokens were requested" in error["message"]
        assert "expected 64, or no such field" in _ask(running, dimensions=16).json()["error"]["message"]
        assert _ask(running, dimensions=64).status_code == 200


def test_a_decoder_without_lm_head_embeds_and_generates_nothing(tmp_path, serving):
    """Compiled, too. Without sentence-transformers' files: the last token's state, normalised."""
    write_embedding_model(tmp_path, pooling=None, bare=True)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["Qwen3Model"]
    with serving("--model", str(tmp_path), *OPTIONS) as running:
        client = running.client()
        found = client.embeddings.create(model="small", input=TEXTS).data
        for text, item in zip(TEXTS, found, strict=True):
            wanted = expected(tmp_path, _ids(tmp_path, text))
            torch.testing.assert_close(torch.tensor(item.embedding), wanted, atol=TOLERANCE, rtol=0)
        with pytest.raises(openai.BadRequestError, match="has no lm_head, and generates no text"):
            client.completions.create(model="small", prompt="a")
        with pytest.raises(openai.BadRequestError, match="expected POST /v1/embeddings"):
            client.chat.completions.create(model="small", messages=[{"role": "user", "content": "a"}])


def test_numbers_that_are_not_finite_fail_their_request_only(tmp_path, serving):
    from safetensors.torch import load_file, save_file

    write_embedding_model(tmp_path, pooling=None)
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.embed_tokens.weight"][9] = float("nan")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with serving("--model", str(tmp_path), *OPTIONS) as running:
        answer = _ask(running, input=[8, 9])
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "request_failed")
        assert _ask(running, input=[8, 7]).status_code == 200
        assert running.metric("failed_requests_total") == 1
        assert running.metric("kv_blocks_used") == 0


@pytest.mark.parametrize("layout", [("--tensor-parallel", "2"), ("--pipeline-parallel", "2")])
def test_ranks_give_the_same_embeddings(tmp_path, serving, layout):
    """Several texts in chunks, beside an answer: of a pipeline, two steps are on their way."""
    write_embedding_model(tmp_path, pooling="mean")
    with serving("--model", str(tmp_path), *OPTIONS, "--max-batch-tokens", "64", *layout) as running:
        client = running.client()
        completions = []

        def complete():
            completions.append(client.completions.create(model="small", prompt="a", max_tokens=20))

        other = threading.Thread(target=complete)
        other.start()
        answer = client.embeddings.create(model="small", input=TEXTS)
        other.join()
        for text, item in zip(TEXTS, answer.data, strict=True):
            wanted = expected(tmp_path, _ids(tmp_path, text), "mean")
            torch.testing.assert_close(torch.tensor(item.embedding), wanted, atol=TOLERANCE, rtol=0)
        assert completions[0].usage.completion_tokens >= 1
