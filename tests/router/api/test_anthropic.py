"""The pages as Anthropic's client asks for them."""

import anthropic
import pytest


@pytest.fixture
def client(one):
    with anthropic.Anthropic(base_url=one.url, api_key=one.run.key(), max_retries=0) as client:
        yield client


def test_models(one, client):
    one.stubs[0].card["max_model_len"] = 2048
    (model,) = client.models.list(limit=5)
    assert (model.id, model.type, model.display_name) == ("stub-model", "model", "stub-model")
    assert model.created_at.year >= 2024
    assert client.models.retrieve("stub-model") == model
    assert "data" in one.http.get("/v1/models").json(), "in OpenAI's shape for others"


def test_a_model_that_there_is_not(client):
    with pytest.raises(anthropic.NotFoundError) as error:
        client.models.retrieve("other")
    body = error.value.response.json()
    assert body["error"]["type"] == "not_found_error"
    assert "valid models: stub-model" in body["error"]["message"]
    assert body["request_id"] == error.value.response.headers["request-id"]


def test_paths_that_there_are_not(one, client):
    with pytest.raises(anthropic.NotFoundError):
        client.post("/api/event_logging/batch", body={}, cast_to=object)
    with pytest.raises(anthropic.APIStatusError) as error:
        client.get("/v1/messages", cast_to=object)
    assert (error.value.status_code, error.value.response.json()["error"]["type"]) == (405, "invalid_request_error")
