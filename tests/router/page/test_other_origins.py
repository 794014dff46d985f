"""Pages of other origins that use the endpoint from a browser: what CORS allows, as Chromium enforces it."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from aiohttp import web

from slurminfer.router.tenants.key_store import KeyStore

from ...support.browser import Tab
from ...support.loop import Loop
from ...support.openai_js import FOLDER, MISSING
from ...support.waiting import eventually
from ..conftest import Deployment

pytestmark = pytest.mark.process

# What OpenAI's and Anthropic's clients add in a browser, and what a page may add itself.
_CUSTOM = {
    **{f"x-stainless-{name}": "1" for name in ("arch", "lang", "os", "package-version", "retry-count", "runtime")},
    "anthropic-version": "2023-06-01",
    "anthropic-dangerous-direct-browser-access": "true",
    "x-my-own": "yes",
}
_ASK = """async ({url, ...how}) => {
  const answer = await fetch(url, how);
  return {status: answer.status, text: await answer.text(), headers: Object.fromEntries(answer.headers)};
}"""
_STREAM = """({url, ...how}) => {
  Object.assign(window, {heard: "", leave: new AbortController()});
  const read = async () => {
    const answer = await fetch(url, {method: "POST", signal: window.leave.signal, ...how});
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part; !(part = await reader.read()).done; ) window.heard += part.value;
  };
  read().catch((error) => { window.broken = error.name; });
}"""


class Elsewhere:
    """A server of pages that is not the router."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        loop.run(self._start())

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get("/", self._page)
        if FOLDER.exists():
            app.router.add_static("/openai", FOLDER)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>elsewhere</title>", content_type="text/html")

    def close(self) -> None:
        self._loop.run(self._runner.cleanup())


@pytest.fixture(scope="module")
def elsewhere(loop: Loop) -> Iterator[Elsewhere]:
    server = Elsewhere(loop)
    yield server
    server.close()


@pytest.fixture
def page(tab: Tab, elsewhere: Elsewhere) -> Tab:
    """A tab with a page of http://localhost:PORT."""
    tab.open(f"http://localhost:{elsewhere.port}/")
    return tab


def call(page: Tab, function: str, **values: object) -> Any:
    """What a function of JavaScript returns in the page, with one object as its argument."""
    return page.run(f"({function})({json.dumps(values)})")


def ask(page, deployment, path, *, method="POST", body=None, key=None, headers=None, credentials="same-origin"):
    shown = {"Authorization": f"Bearer {key or deployment.run.key()}", **(headers or {})}
    text = {} if body is None else {"body": json.dumps(body)}
    return call(
        page, _ASK, url=f"{deployment.url}{path}", method=method, headers=shown, credentials=credentials, **text
    )


def chat(**fields):
    return {"model": "stub-model", "messages": [], **fields}


def test_a_page_asks_with_a_key_and_the_headers_of_common_clients(page, lasting):
    given = {"Content-Type": "application/json", **_CUSTOM}
    answer = ask(page, lasting, "/v1/chat/completions?beta=true", body=chat(), headers=given)
    assert answer["status"] == 200 and json.loads(answer["text"])["object"] == "chat.completion"
    assert answer["headers"]["x-slurminfer-worker"] in ("cpu-0", "cpu-1") and answer["headers"]["x-request-id"]
    seen = max((stub.requests for stub in lasting.stubs), key=len)[-1][1]
    assert seen["x-my-own"] == "yes" and seen["anthropic-version"] == "2023-06-01"


def test_a_page_reads_what_is_left_of_its_limits(page, lasting):
    key = KeyStore(lasting.run).add("limited", requests_per_minute=1000)
    eventually(lambda: httpx.get(f"{lasting.url}/v1/models", headers={"X-Api-Key": key}).status_code == 200)
    headers = ask(page, lasting, "/v1/chat/completions", body=chat(), key=key)["headers"]
    assert headers["x-ratelimit-limit-requests"] == "1000" and "x-ratelimit-remaining-requests" in headers


@pytest.mark.parametrize(
    ("path", "method", "key", "status"),
    [
        ("/v1/models", "GET", None, 200),
        ("/v1/models", "HEAD", None, 200),
        ("/v1/models", "GET", "sk-wrong", 401),
        ("/v1/nonsense", "GET", None, 404),
        ("/v1/files/file-none", "DELETE", None, 404),
    ],
)
def test_a_page_reads_errors_too(page, lasting, path, method, key, status):
    answer = ask(page, lasting, path, method=method, key=key)
    assert answer["status"] == status and answer["headers"]["x-request-id"]
    assert status == 200 or json.loads(answer["text"])["error"]["message"]


def test_a_page_reads_a_stream_as_it_comes_and_leaving_it_ends_it(page, two):
    for stub in two.stubs:
        stub.stepwise = True
    headers = {"Authorization": f"Bearer {two.run.key()}", "Content-Type": "application/json"}
    url, body = f"{two.url}/v1/chat/completions", json.dumps(chat(stream=True))
    call(page, _STREAM, url=url, headers=headers, body=body)
    [stub] = eventually(lambda: [stub for stub in two.stubs if stub.requests])
    stub.go.release()
    eventually(lambda: "Hello" in page.run("window.heard"))
    assert "from" not in page.run("window.heard"), "no event waits for the next one"
    stub.mode = "hang"
    stub.go.release()
    eventually(lambda: "from" in page.run("window.heard"))
    page.run("window.leave.abort()")
    assert stub.aborted.wait(30), "the engine computes no longer for a page that has left"
    eventually(lambda: page.run("window.broken") == "AbortError")


def test_cookies_are_not_allowed(page, lasting):
    script = f"fetch({json.dumps(lasting.url + '/v1/models')}, {{credentials: 'include'}}).catch((error) => error.name)"
    assert page.run(script) == "TypeError"


def test_pages_of_origins_that_are_not_named_get_nothing(tab, elsewhere, empty: Deployment):
    stub = empty.add("cpu-0")
    empty.configure(allowed_origins=(f"http://127.0.0.1:{elsewhere.port}",))
    empty.start_router()
    script = f"""fetch({json.dumps(empty.url + "/v1/chat/completions")}, {{
        method: "POST", headers: {{Authorization: "Bearer {empty.run.key()}"}}, body: "{{}}"
    }}).then((answer) => answer.status, (error) => error.name)"""
    tab.open(f"http://localhost:{elsewhere.port}/")
    assert tab.run(script) == "TypeError" and stub.requests == []
    tab.open(f"http://127.0.0.1:{elsewhere.port}/")
    assert tab.run(script) == 200


_OPENAI = """async ({url, key}) => {
  const { default: OpenAI } = await import("/openai/index.mjs");
  const client = new OpenAI({ baseURL: url, apiKey: key, dangerouslyAllowBrowser: true, maxRetries: 0 });
  const names = (await client.models.list()).data.map((model) => model.id);
  const whole = await client.chat.completions.create({ model: names[0], messages: [] });
  let streamed = "";
  for await (const part of await client.chat.completions.create({ model: names[0], messages: [], stream: true }))
    streamed += part.choices[0]?.delta?.content ?? "";
  const wrong = await client.models.retrieve("none/such").catch((error) => error);
  const { response } = await client.chat.completions.create({ model: names[0], messages: [] }).withResponse();
  return {
    names, whole: whole.choices[0].message.content, id: whole._request_id, streamed,
    wrong: [wrong.constructor.name, wrong.status, wrong.code, Boolean(wrong.requestID)],
    worker: response.headers.get("x-slurminfer-worker"),
  };
}"""


@pytest.mark.skipif(not FOLDER.exists(), reason=MISSING)
@pytest.mark.parametrize("base", ["/v1", "/v1/", ""])
def test_openais_client_for_javascript_works_in_a_page(page, lasting, base):
    said = call(page, _OPENAI, url=f"{lasting.url}{base}", key=lasting.run.key())
    assert said["names"] == ["stub-model"]
    assert said["whole"] == said["streamed"] == "Hello from the stub"
    assert said["wrong"] == ["NotFoundError", 404, "model_not_found", True]
    assert said["id"] and said["worker"] in ("cpu-0", "cpu-1")
    assert page.errors() == [] or all("404" in error.get("text", "") for error in page.errors())
