"""What runs the clients' checks: pins, what a check says, the results and the table; and the guide's recipes."""

import json
import re
import subprocess
import sys

import pytest

from . import checks, environments, report
from .endpoints import Endpoint
from .environments import FOLDER, Client, clients, select

NAMES = [client.name for client in clients()]
BLOCK = re.compile(r"^```(?:python|js|sh|yaml)\n(.*?)^```", re.DOTALL | re.MULTILINE)
NOT_RUN = "schema: v1"  # the configuration of an editor, which the guide says is not run


@pytest.mark.parametrize("client", clients(), ids=NAMES)
def test_a_client_is_pinned_with_all_that_comes_with_it(client):
    assert client.versions()
    text = client.pins.read_text()
    if client.is_npm:
        assert '"resolved"' not in text, "a lock names no registry: make clients-pins"
    else:
        assert all("==" in line for line in text.splitlines())


@pytest.mark.parametrize("client", clients(), ids=NAMES)
def test_the_results_are_those_of_the_pinned_versions(client):
    assert report.read()[client.name].versions == client.versions(), f"make test-clients CLIENTS={client.name}"


def test_the_guide_has_the_table_of_the_results():
    page = report.PAGE.read_text()
    assert report.with_table(page, report.read()) == page, "make test-clients"


def test_the_guide_shows_exactly_the_recipes_that_run():
    shown = {text for text in BLOCK.findall(report.PAGE.read_text()) if NOT_RUN not in text}
    recipes = {path.read_text() for client in clients() for path in client.folder.iterdir() if is_recipe(path)}
    assert shown == recipes


def is_recipe(path):
    return path.name in ("recipe.py", "recipe.mjs", "proxy.yaml") or path.suffix == ".sh"


def test_an_unknown_client_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"no client .opnai.*; there are .*openai"):
        select(["openai", "opnai"])


def test_clients_are_chosen_by_name_and_all_by_none():
    assert [client.name for client in select(["llm", "openai"])] == ["llm", "openai"]
    assert [client.name for client in select([])] == NAMES


def test_new_pins_of_npm_are_asked_for_by_name(monkeypatch):
    """`npm update` leaves exact versions as they are."""
    asked = []
    monkeypatch.setattr(environments, "_ensure_tools", lambda: None)
    monkeypatch.setattr(environments, "_run", lambda argv, folder: asked.append((argv, folder)))
    (client,) = select(["openai-node"])
    environments.refresh(client)
    ((argv, folder),) = asked
    assert folder == client.folder and argv[-2:] == ["openai@latest", "zod@latest"] and "--save-exact" in argv
    assert "--omit-lockfile-registry-resolved" in argv


def test_what_a_check_says_is_read():
    said = "noise\nok: chat\nFAILED: tools: ValueError a: b\nok: errors (x)\n"
    assert checks.parse(said, 1) == checks.Outcome(["chat", "errors (x)"], {"tools": "ValueError a: b"})


@pytest.mark.parametrize(
    ("output", "status", "why"),
    [
        ("ok: chat\nModuleNotFoundError\n", 1, "exit 1: ModuleNotFoundError"),
        ("", 0, "nothing was tried"),
        ("ok: chat\n", None, "not done after 900 s"),
    ],
)
def test_a_check_that_breaks_off_has_failed(output, status, why):
    assert checks.parse(output, status).fails == {"the check": why}


CHECK = """
from tried import expect, finish, tried

@tried("good")
def _():
    expect(1, 1)

@tried("bad")
def _():
    expect([] == [1], [1])

finish()
"""


def run_check(tmp_path, text):
    path = tmp_path / "check.py"
    path.write_text(text)
    endpoint = Endpoint("http://127.0.0.1:1", "sk-a", "model")
    env = checks.environment(Client(tmp_path), endpoint, endpoint, tmp_path)
    return subprocess.run([sys.executable, str(path)], env=env, capture_output=True, encoding="utf-8")


def test_a_check_goes_on_after_a_failure_and_exits_with_1(tmp_path):
    done = run_check(tmp_path, CHECK + "print('not reached')")
    assert (done.returncode, done.stdout) == (1, "ok: good\nFAILED: bad: AssertionError got [1] (line 10)\n")
    assert "Traceback" in done.stderr


def test_a_check_sees_nothing_of_who_runs_it(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "somebody's")
    monkeypatch.setenv("OPENAI_API_KEY", "somebody's")
    done = run_check(tmp_path, "import json, os; print(json.dumps(dict(os.environ)))")
    seen = json.loads(done.stdout)
    assert seen["OPENAI_API_KEY"] == "sk-a" and "ANTHROPIC_AUTH_TOKEN" not in seen and seen["HOME"] == str(tmp_path)


def test_new_results_replace_old_ones_and_those_of_removed_clients_go():
    openai, llm = select(["openai", "llm"])
    old = report.Result({"x": "1"}, ["old"], {})
    known = {"openai": old, "llm": old, "removed": old}
    merged = report.merge(known, {llm: checks.Outcome(["chat"], {"tools": "no"})}, {openai.name, llm.name})
    assert merged == {"llm": report.Result(llm.versions(), ["chat"], {"tools": "no"}), "openai": old}


def test_the_table_says_what_works_and_why_the_rest_does_not():
    results = {"a": report.Result({"a": "1", "b": "2"}, ["chat", "tools"], {"files": "400 | no"})}
    assert "| a | a 1, b 2 | chat; tools; files | not files: 400 \\| no |" in report.table(results)
    assert "| yes |" in report.table({"a": report.Result({"a": "1"}, ["chat"], {})})


def test_a_page_without_a_place_for_the_table_is_an_error():
    with pytest.raises(ValueError, match="no place"):
        report.with_table("# Clients\n", {})


def test_every_folder_of_pins_has_a_check():
    pinned = {path.parent.name for name in ("requirements.in", "package.json") for path in FOLDER.glob(f"*/{name}")}
    assert pinned == set(NAMES)
