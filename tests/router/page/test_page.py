"""What people see of a deployment in a browser."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import msgspec
import pytest

from slurminfer.core.batches import BatchRecord, remove_batch, write_batch
from slurminfer.core.job import JobPhase
from slurminfer.core.records import (
    DecisionRecord,
    DeploymentRecord,
    FleetRecord,
    JobRecord,
    PoolRecord,
    QueuedJob,
    QueueRecord,
    WorkerState,
)
from slurminfer.router.tenants.key_store import KeyStore

from ...support.browser import Tab
from ...support.waiting import eventually
from .conftest import show

pytestmark = pytest.mark.process
HOSTILE = """<img src=x onerror="window.hit=1"><script>window.hit=1</script> </td>&amp;"""
CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")


def rows(tab, kind="worker"):
    script = f"[...document.querySelectorAll('#{kind}-rows tr')].map((row) => [...row.cells].map((c) => c.innerText))"
    return {cells[0]: cells[1:] for cells in tab.run(script)}


def refresh(tab):
    """As a tab does that comes into view again: it asks at once."""
    tab.run("document.dispatchEvent(new Event('visibilitychange'))")


def publish(deployment, index, **fields):
    stub = deployment.stubs[index]
    stub.record = msgspec.structs.replace(stub.record, updated_at=time.time(), **fields)
    deployment.run.write_worker(stub.record)


def enter(tab, key):
    tab.wait_for("API key", "#door")
    tab.run("document.getElementById('key').focus()")
    tab.type(key)
    tab.press("Enter")


def test_the_page_is_served_without_a_key_and_has_no_data_in_it(lasting):
    answer = httpx.get(f"{lasting.url}/", timeout=20)
    assert answer.status_code == 200 and answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    for word in ("cpu-0", "stub-model", lasting.run.key()):
        assert word not in answer.text
    assert httpx.get(f"{lasting.url}/status.json", timeout=20).status_code == 401


def test_workers_models_and_figures_are_shown_and_nobody_else_is_asked(board, lasting):
    assert rows(board)["cpu-0"][0] == "Ready" and rows(board)["cpu-1"][3] == "0 / 4"
    board.wait_for("Live", "#models")
    assert "2 of 2 workers ready" in board.text("#models")
    assert board.run("document.title") == "test: live"
    assert rows(board, "tenant")["owner"][0] == "interactive"
    assert {url.partition("#")[0] for url in board.requested() if not url.startswith("data:")} == {
        f"{lasting.url}/", f"{lasting.url}/status.json",
    }  # fmt: skip
    assert board.errors() == []


def test_a_key_in_the_address_is_taken_out_of_it_and_kept_for_the_tab_only(board, lasting):
    key = lasting.run.key()
    assert board.run("location.href") == f"{lasting.url}/"
    assert board.run("Object.values(sessionStorage)") == [key] and board.run("JSON.stringify(localStorage)") == "{}"
    assert board.run("history.length") <= 2 and key not in board.run("document.documentElement.outerHTML")
    board.open(f"{lasting.url}/")
    board.wait_for("cpu-1", "#worker-rows")
    board.run("document.getElementById('forget').click()")
    assert "API key" in board.text() and board.run("sessionStorage.length") == 0 and "cpu-1" not in board.text()


def test_a_key_is_also_taken_from_an_address_that_is_entered_later(tab, lasting):
    tab.open(f"{lasting.url}/")
    tab.run(f"location.hash = 'key={lasting.run.key()}'")
    tab.wait_for("cpu-1", "#worker-rows")
    assert tab.run("location.href") == f"{lasting.url}/"


def test_it_works_where_the_browser_forbids_storage(tab, lasting):
    forbid = "Object.defineProperty(window, '{}', {{ get() {{ throw new DOMException('no', 'SecurityError'); }} }})"
    script = ";".join(forbid.format(name) for name in ("sessionStorage", "localStorage"))
    tab.call("Page.addScriptToEvaluateOnNewDocument", source=script)
    tab.open(f"{lasting.url}/")
    enter(tab, lasting.run.key())
    tab.wait_for("cpu-1", "#worker-rows")
    tab.run("document.getElementById('theme').click()")
    tab.run("document.getElementById('theme').click()")
    assert tab.text("#theme") == "Theme: dark" and tab.errors() == []


def test_a_wrong_key_is_refused_in_words_and_the_right_one_goes_on(tab, lasting):
    tab.open(f"{lasting.url}/")
    enter(tab, "sk-wrong")
    tab.wait_for("The router does not accept this key.", "#refusal")
    assert tab.run("document.activeElement.id") == "key" and tab.run("sessionStorage.length") == 0
    tab.run("document.getElementById('key').value = ''")
    enter(tab, "sk-schön")
    tab.wait_for("no accents", "#refusal")
    tab.run("document.getElementById('key').value = ''")
    enter(tab, lasting.run.key())
    tab.wait_for("cpu-0", "#worker-rows")


def test_a_tenant_sees_its_own_usage_alone(tab, lasting):
    key = KeyStore(lasting.run).add("course", tokens_per_day=1000)
    eventually(lambda: httpx.get(f"{lasting.url}/v1/models", headers={"X-Api-Key": key}).status_code == 200)
    tab.open(f"{lasting.url}/#key={key}")
    tab.wait_for("cpu-0", "#worker-rows")
    assert list(rows(tab, "tenant")) == ["course"] and tab.text("#usage-title") == "Your usage"
    assert rows(tab, "tenant")["course"][5] == "0 of 1,000"


def test_a_lost_worker_is_shown_without_reload_and_told_to_screen_readers(changing, two):
    publish(two, 1, state=WorkerState.GONE, reason="the node has failed")
    changing.wait_for("the node has failed", "#worker-rows")  # the page asks by itself
    assert rows(changing)["cpu-1"][0].split() == ["Gone", "the", "node", "has", "failed"]
    changing.wait_for("cpu-1 is gone, was ready", "#changes")
    assert changing.run("document.getElementById('changes').closest('[role=log]') !== null")
    assert "1 of 2 workers ready" in changing.text("#models")
    assert changing.errors() == []


def test_what_a_worker_says_stays_text(changing, two):
    publish(two, 1, state=WorkerState.GONE, reason=HOSTILE, model=f"m'{HOSTILE}")
    refresh(changing)
    eventually(lambda: refresh(changing) or HOSTILE in changing.text("#worker-rows"))
    assert HOSTILE in changing.text("#models")
    assert (
        changing.run("window.hit") is None
        and changing.run("document.querySelectorAll('main img, main script').length") == 0
    )
    assert changing.errors() == []


def test_even_a_script_that_gets_into_the_page_is_not_run(board):
    board.run("(() => { const s = document.createElement('script'); document.body.append(s); })()")
    refused = "(() => { try { document.body.innerHTML = '<b>x</b>'; return 'set'; } catch (e) { return e.name; } })()"
    assert board.run(refused) == "TypeError"
    assert board.run("fetch('http://127.0.0.1:9/').then(() => 'sent', (e) => e.name)") == "TypeError"
    assert any("Content Security Policy" in str(error) for error in board.errors())


def test_models_that_start_or_wait_say_for_how_long_and_why(tab, empty):
    empty.add("stubs-0")
    publish(empty, 0, state=WorkerState.GONE, load_s=95.0, model="other", ends_at=None)
    empty.add("stubs-1")
    publish(empty, 1, state=WorkerState.STARTING, ends_at=time.time() + 1800)
    jobs = tuple(JobRecord(id=str(index), role=role) for index, role in enumerate(("router", "default-7")))
    empty.run.claims.take(DeploymentRecord(launcher="slurm", claimed_by="1 on n1", claimed_at=0.0, jobs=jobs))
    said = QueuedJob(phase=JobPhase.PENDING, state="PENDING", reason="Priority", starts_at=time.time() + 7300)
    empty.run.write_queue(
        QueueRecord(written_at=time.time(), workers={f"{empty.run.read_spec().pool[0].name}-7": said})
    )
    empty.start_router()
    tab.open(f"{empty.url}/#key={empty.run.key()}")
    tab.wait_for("Ready in about 1 min", "#models")
    assert "29 min" in rows(tab)["stubs-1"][5] or "30 min" in rows(tab)["stubs-1"][5]


def test_an_outage_is_said_and_its_end_too(board):
    board.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    refresh(board)
    board.wait_for("No news from the router: it cannot be reached.", "#notice")
    assert "The figures below are those of" in board.text("#notice") and "cpu-1" in board.text("#worker-rows")
    assert "Next try in" in board.text("#notice")
    eventually(lambda: "No news" in board.run("document.getElementById('said').textContent"))
    board.call("Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    board.run("document.getElementById('again').click()")
    eventually(lambda: board.run("document.getElementById('notice').hidden"))


def test_a_tab_out_of_sight_asks_nothing(board):
    board.run("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    asked = len(board.requested())
    board.run("watch.ask()")
    assert len(board.requested()) == asked
    board.run("delete document.hidden")
    refresh(board)
    eventually(lambda: len(board.requested()) > asked)


def focused(tab):
    return tab.run(
        "(() => { const e = document.activeElement; const s = getComputedStyle(e);"
        " return [e.id || e.textContent.trim(), e.matches(':focus-visible') && s.outlineStyle !== 'none']; })()"
    )


def test_the_keyboard_reaches_every_control_and_shows_where_it_is(board):
    wanted = board.run(
        "[...document.querySelectorAll('a, button, input, select, [tabindex]')]"
        ".filter((e) => e.checkVisibility() && e.tabIndex >= 0).map((e) => e.id || e.textContent.trim())"
    )
    board.run("document.activeElement.blur()")
    reached = []
    for _ in wanted:
        board.press("Tab")
        name, is_visible = focused(board)
        reached.append(name)
        assert is_visible, name
    assert reached == wanted and reached[0] == "Skip to content" and len(set(reached)) == len(reached)


def test_tabs_are_used_with_the_arrow_keys(board):
    board.run("document.querySelector('[role=tab]').focus()")
    names = board.run("[...document.querySelectorAll('[role=tab]')].map((tab) => tab.textContent)")
    seen = []
    for _ in names:
        seen.append((focused(board)[0], board.text("#snippet-code")))
        board.press("ArrowRight")
    assert len({text for _, text in seen}) == len(names) == len({name for name, _ in seen})
    assert focused(board)[0] == "tab-0"
    board.press("End")
    assert "ssh -N -L" in board.text("#snippet-code")


@pytest.mark.parametrize("has_clipboard", [True, False])
def test_examples_are_copied_with_and_without_the_clipboard(board, has_clipboard):
    lent = "{ writeText: async (text) => { window.copied = text; } }" if has_clipboard else "undefined"
    board.run(f"Object.defineProperty(navigator, 'clipboard', {{ value: {lent} }}) && null")
    board.run("document.addEventListener('copy', () => { window.copied = document.activeElement.value; })")
    board.run("document.getElementById('copy-snippet').focus()")
    board.press("Enter")
    board.wait_for("Copied", "#copy-snippet")
    assert board.run("window.copied") == board.run("document.getElementById('snippet-code').textContent")
    assert focused(board)[0] == "copy-snippet" and board.run("document.querySelector('textarea')") is None
    eventually(lambda: board.run("document.getElementById('said').textContent") == "Copied")


def test_the_theme_can_be_chosen_and_is_kept(board, lasting):
    background = "getComputedStyle(document.body).backgroundColor"
    board.emulate(prefers_color_scheme="light")
    light = board.run(background)
    board.emulate(prefers_color_scheme="dark")
    dark = board.run(background)
    assert light != dark
    board.run("document.getElementById('theme').focus()")
    board.press("Enter")
    assert board.text("#theme") == "Theme: light" and board.run(background) == light
    board.open(f"{lasting.url}/")
    assert board.text("#theme") == "Theme: light" and board.run(background) == light


def test_text_has_contrast_in_both_schemes(changing, two):
    publish(two, 0, state=WorkerState.DRAINING, reason="walltime")
    publish(two, 1, state=WorkerState.GONE, reason="failed")
    eventually(lambda: refresh(changing) or "failed" in changing.text("#worker-rows"))
    changing.run("document.getElementById('notice').hidden = false")
    changing.run("document.getElementById('trouble').textContent = 'No news'")
    for kind in ("good", "busy", "wait", "drain", "bad", "off"):
        changing.run(f"document.querySelector('#models').append(make('b', {{ class: '{kind}', text: 'x' }}))")
    for scheme in ("light", "dark"):
        changing.emulate(prefers_color_scheme=scheme)
        seen = changing.run(CONTRAST)
        assert seen["found"] == [] and seen["seen"] > 60
    changing.run("openDoor('Not this key')")
    for scheme in ("light", "dark"):
        changing.emulate(prefers_color_scheme=scheme)
        assert changing.run(CONTRAST)["found"] == []


def test_nothing_is_wider_than_the_window(changing, two):
    long = "/very/long/path/" + "x" * 300
    publish(two, 0, state=WorkerState.GONE, reason=long, ends_at=time.time() + 400)
    publish(two, 1, ends_at=time.time() + 400_000, model="model-" + "y" * 100)
    eventually(lambda: refresh(changing) or "yyy" in changing.text("#models"))
    for width in (320, 360, 600, 895, 897, 1280):
        changing.resize(width, 740)
        widths = changing.run(
            "CLIENTS.map((_, index) => { choose(index); return document.documentElement.scrollWidth; })"
        )
        assert max(widths) <= width
    changing.run("openDoor('Not this key')")
    changing.resize(320, 740)
    assert changing.run("document.documentElement.scrollWidth") <= 320


# How far the text of each cell is from where its column's header begins, or ends where figures stand at the right.
DISTANCES = """(() => {
  const box = (cell) => {
    const text = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT).nextNode(), range = document.createRange();
    range.selectNodeContents(text);
    return range.getBoundingClientRect();
  };
  return [...document.querySelectorAll('tbody tr')].flatMap((row) => [...row.cells].map((cell, index) => {
    const header = row.closest('table').tHead.rows[0].cells[index];
    const side = cell.className.includes('right') ? 'right' : 'left';
    return [header.innerText, Math.abs(box(header)[side] - box(cell)[side])];
  }));
})()"""


@pytest.mark.parametrize("width", [1280, 900])
def test_headers_stand_above_their_figures(changing, two, width):
    KeyStore(two.run).add("course", tokens_per_day=1000)
    publish(two, 0, ends_at=time.time() + 5000)
    eventually(lambda: refresh(changing) or "course" in changing.text("#tenant-rows"))
    eventually(lambda: refresh(changing) or "1 h" in changing.text("#worker-rows"))
    changing.resize(width, 900)
    found = [(name, distance) for name, distance in changing.run(DISTANCES) if name != "State"]  # has a mark before it
    assert len(found) == 2 * 6 + 2 * 8 and [one for one in found if one[1] > 1] == []


def test_motion_is_reduced_for_those_who_want_it(board):
    transition = "getComputedStyle(document.querySelector('.bar i')).transitionDuration"
    assert board.run(transition) == "0.4s"
    board.emulate(prefers_reduced_motion="reduce")
    assert board.run(transition) == "0s"


def test_tables_are_tables_for_screen_readers_on_a_phone_too(board):
    board.resize(360, 740)
    nodes = board.call("Accessibility.getFullAXTree")["nodes"]
    roles = [node["role"]["value"] for node in nodes if not node["ignored"]]
    assert roles.count("table") == 2 and roles.count("rowheader") >= 3 and roles.count("columnheader") == 15
    unnamed = [
        node["role"]["value"]
        for node in nodes
        if not node["ignored"]
        and node["role"]["value"] in ("button", "link", "tab", "combobox", "textbox", "table")
        and not node.get("name", {}).get("value")
    ]
    assert unnamed == []


def run_shell(script, **env):
    return subprocess.run(["bash", "-c", script], env=os.environ | env, capture_output=True, text=True, timeout=60)


def examples(tab: Tab, model: str, url: str) -> dict[str, str]:
    values = json.dumps({"model": model, "url": url, "cluster": "http://10.0.0.7:30000/v1"})
    return tab.run(f"Object.fromEntries(CLIENTS.map(([name, , write]) => [name, write({values})]))")


def test_the_examples_work_as_they_stand(board, lasting):
    found = examples(board, "stub-model", f"{lasting.url}/v1")
    key = lasting.run.key()
    assert all(key not in text for text in found.values())
    answer = run_shell(found["curl"], API_KEY=key)
    assert '"content":"Hello"' in answer.stdout and "[DONE]" in answer.stdout, answer.stderr
    script = found["Python"].replace("'", "'\\''")
    assert run_shell(f"'{sys.executable}' -c '{script}'", API_KEY=key).stdout == "Hello from the stub"
    assert found["ssh tunnel"].startswith("ssh -N -L 30000:10.0.0.7:30000 ")


def test_a_models_name_cannot_leave_its_quotes(board):
    model = """a'b"$(touch /tmp/x)`id`\\ {{x}}"""
    found = examples(board, model, "http://h/v1")
    run = run_shell("curl() { printf '%s' \"${@: -1}\"; }\n" + found["curl"], API_KEY="k")
    assert json.loads(run.stdout)["model"] == model
    run = run_shell("aider() { printf '%s' \"$2\"; }\n" + found["aider"], API_KEY="k")
    assert run.stdout == f"openai/{model}"
    assert f"model={json.dumps(model)}" in found["Python"]


def say(deployment, pool, *decisions, trouble=""):
    """What the controller of the fleet writes."""
    told = tuple(DecisionRecord(at=1.8e9, text=text) for text in decisions)
    pools = {"workers": PoolRecord(**pool)}
    record = FleetRecord(written_at=time.time(), pools=pools, decisions=told, trouble=trouble)
    deployment.run.write_fleet(record)


def test_a_pool_that_sleeps_says_what_wakes_it(tab, empty):
    say(empty, {"wanted": 0, "may_come": True}, "workers: 1 worker is wanted", "workers: 0 are wanted, no request came")
    empty.start_router()
    tab.open(f"{empty.url}/#key={empty.run.key()}")
    tab.wait_for("asleep: the next request starts a worker", "#pool-rows")
    assert "Asleep" in tab.text("#models") and "The next request starts a worker" in tab.text("#models")
    tab.run("document.querySelector('#decisions summary').click()")
    rows = tab.text("#decision-rows").splitlines()
    assert [row for row in rows if row.startswith("workers:")] == [
        "workers: 0 are wanted, no request came", "workers: 1 worker is wanted"
    ]  # fmt: skip
    assert tab.errors() == []


def test_why_a_pool_has_fewer_workers_than_are_wanted_stays_text_and_fits(tab, empty, monkeypatch):
    monkeypatch.setattr("slurminfer.router.control.file_watch.PERIOD_S", 0.05)
    say(empty, {"wanted": 3, "waits": HOSTILE}, HOSTILE * 3, trouble="the scheduler does not answer")
    empty.start_router()
    tab.open(f"{empty.url}/#key={empty.run.key()}")
    tab.wait_for("0 of 3 wanted workers ready", "#pool-rows")
    assert HOSTILE in tab.text("#pool-rows") and "the scheduler does not answer" in tab.text("#controller")
    tab.run("document.querySelector('#decisions summary').click()")
    for width in (1280, 360):
        tab.resize(width, 900)
        for scheme in ("light", "dark"):
            tab.emulate(prefers_color_scheme=scheme)
            assert tab.run(CONTRAST)["found"] == []
            assert tab.run("document.documentElement.scrollWidth") <= width
    assert not tab.run("window.hit")
    say(empty, {"wanted": 3, "gave_up": True, "waits": "5 workers in a row have ended"})
    eventually(lambda: refresh(tab) or "given up" in tab.text("#pool-rows"))
    assert "none is started any more: 5 workers in a row have ended" in tab.text("#pool-rows")


def test_without_a_controller_nothing_is_said_of_one(board):
    assert board.run("document.getElementById('pools').hidden && document.getElementById('to-pools').hidden")


def test_batches_that_run_through_the_deployment_are_shown_and_vanish_at_their_end(tab, two):
    now, folder = time.time(), two.run.batches_path
    batch = BatchRecord(
        batch="a1", name=HOSTILE, written_at=now, began_at=now - 60, total=20_000, answered=4_900, failed=100,
        rows_per_s=81.5, prompt_tokens_per_s=20_400.0, completion_tokens_per_s=9_100.0, in_flight=128,
        left_s=7200.0, left_low_s=5400.0, left_high_s=10_800.0,
    )  # fmt: skip
    write_batch(folder, "one", batch)
    show(tab, two)
    shown = "document.getElementById('batches').hidden === false"
    eventually(lambda: (refresh(tab), tab.run(shown))[1], "the batch is shown", 30)
    [(name, cells)] = rows(tab, "batch").items()
    assert name == HOSTILE and tab.run("window.hit === undefined")
    assert cells[0] == "5,000 of 20,000" and cells[1] == "81.5" and cells[3] == "9,100" and cells[5] == "100"
    assert cells[6].startswith("2 h 0 min") or cells[6].startswith("1 h 59 min")
    assert "1 h 29 min to 2 h 59 min" in cells[6] or "1 h 30 min to 3 h 0 min" in cells[6]
    assert tab.errors() == []
    remove_batch(folder, "one")
    eventually(lambda: (refresh(tab), not tab.run(shown))[1], "the batch is gone", 30)
