"""The page that shows what the API has, in a browser."""

import itertools
import shlex
import urllib.parse

import httpx
import pytest

from slurminfer.router.api.description.openapi import description

pytestmark = pytest.mark.process


@pytest.fixture
def docs(used, lasting):
    used.open(f"{lasting.url}/docs")
    used.wait_for("Base URL for clients")
    return used


def opened(tab, name):
    tab.run(f"document.getElementById('{name}').open = true")
    selector = f"[id='{name}']"
    tab.wait_for("With curl", selector)
    return tab.text(selector)


def test_the_page_is_served_without_a_key_and_loads_nothing_of_others(docs, lasting):
    answer = httpx.get(f"{lasting.url}/docs", timeout=20)
    policy = answer.headers["Content-Security-Policy"]
    assert answer.status_code == 200 and "default-src 'none'" in policy and "unsafe" not in policy
    asked = {url for url in docs.requested() if not url.startswith("data:")}
    assert asked == {f"{lasting.url}/docs", f"{lasting.url}/openapi.json"}
    assert docs.errors() == []
    assert docs.text("#base") == f"{lasting.url}/v1"


def test_every_operation_of_the_description_is_shown(docs):
    shown = docs.run(
        "[...document.querySelectorAll('summary')].map((one) => [one.children[0].innerText, one.children[1].innerText])"
    )
    wanted = [
        [method.upper(), path]
        for path, operations in description()["paths"].items()
        for method in operations
        if method != "parameters"
    ]
    assert sorted(shown) == sorted(wanted)
    assert docs.run("[...document.querySelectorAll('h2')].map((one) => one.innerText)") == [
        "Generation", "Models", "Files and batches", "Deployment",
    ]  # fmt: skip


def test_an_operation_shows_its_fields_and_a_command_that_works(docs, lasting):
    text = opened(docs, "post/v1/chat/completions")
    for said in (
        "temperature",
        "number, 0 to 2",
        "required: the conversation so far",
        "X-Priority",
        "429",
        "Retry-After",
    ):
        assert said in text, said
    command = docs.text("[id='post/v1/chat/completions'] pre")
    words = shlex.split(command.replace("\\\n", " "))
    headers = dict(word.split(": ", 1) for flag, word in itertools.pairwise(words) if flag == "-H")
    assert headers.pop("Authorization") == "Bearer $API_KEY"
    body = words[words.index("-d") + 1].replace("MODEL", "stub-model")
    answer = lasting.http.post(words[words.index("POST") + 1], content=body, headers=headers)
    assert answer.status_code == 200, answer.text


def test_all_operations_can_be_opened(docs):
    docs.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    docs.wait_for("curl -X POST", "[id='post/v1/batches/batch_id/cancel']")
    assert "undefined" not in docs.text() and "[object" not in docs.text()
    assert docs.errors() == []


def test_a_link_opens_the_operation_that_it_names(tab, lasting):
    tab.open(f"{lasting.url}/docs#get/v1/models")
    tab.wait_for("With curl", "[id='get/v1/models']")
    tab.open(f"{lasting.url}/docs/")
    tab.wait_for("Base URL for clients")
    assert tab.run("document.getElementById('to-status').href") == f"{lasting.url}/"


def test_a_router_that_does_not_answer_is_said(tab, lasting):
    tab.call("Network.setBlockedURLs", urls=["*openapi.json"])
    tab.open(f"{lasting.url}/docs")
    tab.wait_for("openapi.json could not be read", "#trouble")


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(docs, width):
    docs.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    docs.resize(width, 900)
    assert docs.run("document.documentElement.scrollWidth") <= width


HOSTILE = "<img src=x onerror=window.hit=1><script>window.hit=1</script>"
QUOTED = urllib.parse.quote(HOSTILE)


@pytest.fixture(scope="module")
def same_tab(browser):
    """A tab for tests that only open addresses in it: to make one takes most of such a test's CPU time."""
    tab = browser.tab()
    yield tab
    tab.close()


@pytest.mark.parametrize("page", ["/", "/docs"])
@pytest.mark.parametrize(
    "rest",
    [f"?a={HOSTILE}", f"?{QUOTED}#{HOSTILE}", f"#{HOSTILE}", f"#{QUOTED}", f"#key={HOSTILE}", "#javascript:hit=1"],
)
def test_an_address_that_has_a_script_runs_none(same_tab, lasting, page, rest):
    same_tab.open("about:blank#")
    same_tab.open(f"{lasting.url}{page}{rest}")
    same_tab.wait_for("slurminfer")
    same_tab.run("window.dispatchEvent(new Event('hashchange'))")
    assert same_tab.run("window.hit === undefined && document.querySelectorAll('img, iframe, object').length === 0")


@pytest.mark.parametrize(
    "path",
    [f"/{QUOTED}", f"/v1/{QUOTED}", f"/docs/{QUOTED}", f"/v1/models/{QUOTED}", f"/v1/responses/resp_{QUOTED}",
     f"/v1/files/{QUOTED}?after={QUOTED}", f"/openapi.json/{QUOTED}"],
)  # fmt: skip
def test_what_an_error_repeats_is_no_page(same_tab, lasting, path):
    """A browser that is sent to an address shows its error as text, and runs nothing of it."""
    for headers in ({}, {"Authorization": f"Bearer {lasting.run.key()}"}):
        answer = httpx.get(f"{lasting.url}{path}", headers=headers, timeout=20)
        assert answer.status_code >= 400 and answer.headers["Content-Type"].startswith("application/json")
    same_tab.call("Network.setExtraHTTPHeaders", headers=headers)
    same_tab.open(f"{lasting.url}{path}")
    assert same_tab.run("window.hit === undefined && document.querySelectorAll('script, img').length === 0")


def test_the_pages_are_in_nobodys_frame_and_run_nothing_that_is_put_into_them(docs):
    """The policy forbids what a fault of the page's own could let in."""
    refused = "(() => {{ try {{ {}; return 'taken' }} catch (error) {{ return error.name }} }})()"
    for sink in (
        "document.body.innerHTML = '<b>x</b>'",
        "setTimeout('window.hit = 1')",
        "document.body.setAttribute('onclick', 'window.hit = 1')",
    ):
        assert docs.run(refused.format(sink)) == "TypeError", sink
    docs.run("document.body.append(Object.assign(document.createElement('iframe'), {src: location.href}))")
    assert docs.run("window.hit === undefined")
    assert docs.run("fetch('https://example.com/').then(() => 'sent', () => 'refused')") == "refused"
