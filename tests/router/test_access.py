"""Keys, pages of other origins, ids of requests, and paths that there are not."""

import httpx
import pytest

from slurminfer.core.net.cors import Origins

PAGE = "http://localhost:5173"
CHAT = {"model": "stub-model", "messages": []}
HI = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_the_scheme_of_a_key_is_case_insensitive(one, scheme):
    url, key = f"{one.url}/v1/models", one.run.key()
    assert httpx.get(url, headers={"Authorization": f"{scheme} {key}"}).status_code == 200
    assert httpx.get(url, headers={"Authorization": f"{scheme} x{key}"}).status_code == 401


@pytest.mark.parametrize("given", [b"Basic KEY", b"KEY", b"Bearer", b"Bearer \xff\xfe", b"\xe9", b"Bearer KEY KEY"])
def test_other_credentials_are_wrong(one, given):
    given = given.replace(b"KEY", one.run.key().encode())
    answer = httpx.get(f"{one.url}/v1/models", headers={"Authorization": given})
    message = answer.json()["error"]["message"]
    assert answer.status_code == 401 and message.startswith(
        ("wrong API key: this", "no API key in the header: expected")
    )


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, "missing API key: expected the header 'Authorization: Bearer KEY', or 'X-Api-Key: KEY'"),
        ({"Authorization": "Basic dTpw"}, "no API key in the header: expected the header 'Authorization: Bearer KEY'"),
        (
            {"Authorization": "Bearer sk-x"},
            "wrong API key: this deployment has no such key; its own is in the file 'key'",
        ),
        ({"X-Api-Key": "sk-x"}, "wrong API key: this deployment has no such key"),
    ],
)
def test_the_refusal_says_what_is_wrong_with_the_key(one, headers, said):
    answer = httpx.get(f"{one.url}/v1/models", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["message"].startswith(said)


def test_a_key_may_come_as_x_api_key_and_goes_no_further(one):
    answer = httpx.post(
        f"{one.url}/v1/messages", json={**CHAT, "messages": HI, "max_tokens": 9}, headers={"X-Api-Key": one.run.key()}
    )
    assert answer.status_code == 200
    assert "x-api-key" not in one.stubs[0].requests[-1][1]


@pytest.mark.parametrize(("authorization", "status"), [("Basic dTpw", 200), ("Bearer sk-wrong", 401), ("", 200)])
def test_a_key_as_x_api_key_counts_beside_what_is_for_a_proxy(one, authorization, status):
    headers = {"X-Api-Key": one.run.key(), "Authorization": authorization}
    assert httpx.get(f"{one.url}/v1/models", headers=headers).status_code == status


def test_metrics_have_a_key_of_their_own_which_opens_nothing_else(one):
    path = one.run.metrics_key_path
    key = path.read_text().strip()
    headers = {"Authorization": f"Bearer {key}"}
    assert path.stat().st_mode & 0o777 == 0o600 and key != one.run.key()
    assert httpx.get(f"{one.url}/metrics").status_code == 401
    assert "slurminfer_router_connections" in httpx.get(f"{one.url}/metrics", headers=headers).text
    for path in ["/workers", "/v1/models", "/metrics/x", "/v1/metrics"]:
        assert httpx.get(one.url + path, headers=headers).status_code == 401
    one.stop_router()
    one.start_router()
    assert httpx.get(f"{one.url}/metrics", headers=headers).status_code == 200


def preflight(one, origin):
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    headers["Access-Control-Request-Headers"] = "authorization,content-type,x-stainless-os"
    headers["Access-Control-Request-Private-Network"] = "true"
    return httpx.options(f"{one.url}/v1/chat/completions", headers=headers)


def test_a_page_of_an_allowed_origin_can_use_the_endpoint(one):
    asked = preflight(one, PAGE)
    assert asked.status_code == 204
    assert asked.headers["Access-Control-Allow-Origin"] == PAGE
    assert "POST" in asked.headers["Access-Control-Allow-Methods"]
    assert "x-stainless-os" in asked.headers["Access-Control-Allow-Headers"]
    assert asked.headers["Access-Control-Allow-Private-Network"] == "true"
    assert "Access-Control-Allow-Credentials" not in asked.headers
    for body in (CHAT, {**CHAT, "stream": True}, {"model": "none"}):
        answer = one.http.post("/v1/chat/completions", json=body, headers={"Origin": PAGE})
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert "X-Request-Id" in answer.headers["Access-Control-Expose-Headers"]
        assert answer.headers["Vary"] == "Origin"
    assert httpx.get(f"{one.url}/v1/models", headers={"Origin": PAGE}).status_code == 401, "the key is needed still"


def test_a_page_of_another_origin_cannot(one):
    for answer in (
        preflight(one, "https://evil.example"),
        one.http.post("/v1/chat/completions", json=CHAT, headers={"Origin": "https://evil.example"}),
    ):
        assert not [name for name in answer.headers if name.lower().startswith("access-control-allow")]
    assert "Access-Control-Allow-Origin" not in one.chat().headers


def test_origins_of_the_spec_are_used(empty):
    empty.add("cpu-0")
    empty.configure(allowed_origins=("https://chat.example.org",))
    empty.start_router()
    assert preflight(empty, "https://chat.example.org").headers["Access-Control-Allow-Origin"]
    assert "Access-Control-Allow-Origin" not in preflight(empty, PAGE).headers


@pytest.mark.parametrize(
    ("allowed", "origin", "is_allowed"),
    [
        (["*"], "https://x.example", True),
        (["*"], "null", True),
        ([], "https://x.example", False),
        (["https://x.example"], "https://X.example", True),
        (["https://x.example"], "http://x.example", False),
        (["https://*.example"], "https://a.b.example", True),
        (["https://*.example"], "https://a.example.evil", False),
        (["https://*.example"], "https://evil/.example", False),
        (["https://x.example"], "https://xxexample", False),
        (["https://*.example"], "https://a.example/", False),
        (["https://*-*.example"], "https://a-b.example", True),
        (["https://*-*.example"], "https://a.example", False),
        (["http://[::1]:*"], "http://[::1]:80", True),
    ],
)
def test_origins(allowed, origin, is_allowed):
    assert Origins(allowed, []).allow(origin.encode()) is is_allowed


def test_an_origin_of_kilobytes_takes_no_time_that_anybody_notices():
    """As a regular expression, this pattern would try some 10^14 ways to divide the origin."""
    origins = Origins(["https://*-*-*-*.example"], [])
    assert not origins.allow(b"https://" + b"-" * 8000)
    assert origins.allow(b"https://" + b"-" * 8000 + b".example")


def test_a_clients_request_id_goes_to_the_worker_and_back(one):
    for path, body in [("/v1/completions", CHAT), ("/v1/completions", {"model": "none"}), ("/nonsense", {})]:
        answer = one.http.post(path, json=body, headers={"X-Request-Id": "abc-1"})
        assert answer.headers["X-Request-Id"] == "abc-1"
    assert one.stubs[0].requests[-1][1]["x-request-id"] == "abc-1"
    with one.http.stream("POST", "/v1/completions", json={**CHAT, "stream": True}) as answer:
        assert len(answer.headers["X-Request-Id"]) == 32
    assert one.stubs[0].requests[-1][1]["x-request-id"] == answer.headers["X-Request-Id"]
    assert httpx.get(f"{one.url}/v1/models").headers["X-Request-Id"]


@pytest.mark.parametrize("given", [b"x" * 129, b"a b", b"\xff", b"", b"a\tb"])
def test_an_id_that_is_too_long_or_not_printable_is_replaced(one, given):
    answer = one.http.get("/v1/models", headers={b"X-Request-Id": given})
    assert len(answer.headers["X-Request-Id"]) == 32


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nonsense", 404),
        ("PUT", "/v1/nonsense", 404),
        ("GET", "/v1/", 404),
        ("GET", "/nonsense/", 404),
        ("GET", "/chat/completions", 405),
        ("HEAD", "/v1/chat/completions", 405),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/completions", 405),
        ("GET", "/v1/embeddings", 405),
        ("POST", "/v1/models", 405),
        ("POST", "/v1/models/stub-model", 405),
        ("POST", "/health", 405),
    ],
)
def test_paths_that_there_are_not_and_methods_that_they_do_not_take(one, method, path, status):
    answer = one.http.request(method, path)
    assert answer.status_code == status
    if method == "HEAD":
        assert answer.content == b"" and answer.headers["Allow"] == "POST"
        return
    assert answer.json()["error"]["type"] == ("not_found_error" if status == 404 else "invalid_request_error")
    assert ("Allow" in answer.headers) is (status == 405)
    assert one.stubs[0].requests == []


def test_what_no_worker_knows_is_404_in_openai_shape(one, monkeypatch):
    stub = one.stubs[0]
    stub.status, stub.error = 404, {"detail": "Not Found"}
    answer = one.http.post("/v1/nonsense", json={})
    assert answer.json()["error"]["type"] == "not_found_error"


def test_the_card_of_a_model_is_the_workers_own(empty):
    stub = empty.add("cpu-0")
    stub.card |= {"max_model_len": 4096, "root": "org/stub", "parent": None}
    empty.start_router()
    told = stub.card | {"state": "live", "created": empty.run.served_at()}
    assert empty.http.get("/v1/models").json() == {"object": "list", "data": [told]}
    assert empty.http.get("/v1/models/stub-model").json() == told
    empty.stop_router()
    stub.card["created"] = 8
    empty.start_router()
    assert empty.http.get("/v1/models/stub-model").json() == told, "the same after a start, of a worker too"


def test_a_worker_that_says_nothing_of_its_model_has_a_card_all_the_same(empty):
    empty.add("cpu-0").card["id"] = "another"
    empty.start_router()
    card = empty.http.get("/v1/models").json()["data"][0]
    assert (card["id"], card["owned_by"]) == ("stub-model", "slurminfer") and card["created"] > 0


@pytest.mark.parametrize("body", [b'{"messages": "\xff"}', b'{"model": "stub-model", "x": "\xc3"}'])
def test_a_body_that_is_no_utf8_is_the_clients_error(one, body):
    assert one.http.post("/v1/completions", content=body).status_code == 400
    assert one.stubs[0].requests == []


def test_options_without_an_origin_says_nothing_of_pages(one):
    answer = httpx.options(f"{one.url}/v1/chat/completions")
    assert answer.status_code == 204
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/chat/completions/", "//v1/chat/completions", "/v1//chat/completions", "/v1/v1/chat/completions"),
        *("/chat/completions", "//chat/completions/", "/v1/chat%2Fcompletions", "/v1/%63hat/completions"),
    ],
)
def test_a_wrong_base_url_reaches_the_worker_as_the_right_one(one, path):
    assert one.http.post(f"{one.url}{path}?api-version=1&beta=true", json=CHAT).status_code == 200
    assert one.stubs[0].requests[-1][0] == "/v1/chat/completions?api-version=1&beta=true"


@pytest.mark.parametrize("path", ["/models", "/v1/models/", "//v1//models", "/models/stub-model", "/v1/v1/models"])
def test_a_wrong_base_url_finds_the_models(one, path):
    assert "stub-model" in one.http.get(f"{one.url}{path}").text


@pytest.mark.parametrize("path", ["/metrics/", "//metrics", "/workers/", "//v1/models"])
def test_a_path_with_slashes_too_many_needs_the_same_key(one, path):
    assert httpx.get(f"{one.url}{path}").status_code == 401
    assert one.http.get(f"{one.url}{path}").status_code == 200


def test_the_name_of_a_model_may_be_a_path(empty):
    stub = empty.add("cpu-0")
    stub.card["id"] = "/scratch//m"
    stub.publish(model="/scratch//m")
    empty.start_router()
    for path in ("/v1/models//scratch//m", "/v1/models/%2Fscratch%2F%2Fm"):
        assert empty.http.get(f"{empty.url}{path}").json()["id"] == "/scratch//m", path
    assert empty.openai.models.retrieve("/scratch//m").id == "/scratch//m"
