"""What the documentation shows to be typed or written: specs are valid, commands and their options exist."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import typer

from slurminfer.cli import app
from slurminfer.core.site.prices import PriceTable
from slurminfer.core.spec.files import parse_spec
from slurminfer.core.toml import parse_toml
from slurminfer.jobs.serve.spec import read_spec
from slurminfer.nodes.engines.check import check_engines

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*/*.md")), ROOT / "docs/security.md"]
HANDWRITTEN = [page for page in PAGES if page.name != "commands.md"]
SPECS = [path for path in sorted((ROOT / "examples").glob("*.toml")) if path.name != "quantize.toml"]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Name and text of each fenced block of this language."""
    for page in PAGES:
        found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        yield from ((f"{relative(page)}-{number}", text) for number, text in enumerate(found))


def completed(text: str) -> str:
    """The spec with what its passage leaves out: a name, a model, and the pools that its rules name."""
    shown = tomllib.loads(text)
    rules = shown.get("router", {}).get("rule", [])
    served = next((rule["serve"] for rule in rules if "serve" in rule), "demo")
    spec = {"name": "shown", "model": {"path": "demo", "name": served}, **shown}
    named = sorted({name for rule in rules for name in rule.get("pools", [])})
    spec.setdefault("pool", [{"name": name} for name in named] or [{}])
    return tomli_w.dumps(spec)


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in blocks("toml")])
def test_a_spec_that_is_shown_is_valid(text):
    if "currency" in text:
        parse_toml(text, PriceTable)
    else:
        check_engines(parse_spec(completed(text)))


@pytest.mark.parametrize("path", SPECS, ids=relative)
def test_a_spec_of_the_examples_is_valid(path):
    read_spec(path)


def options_of(words: list[str]) -> set[str]:
    """The options of the command that these words call; the arguments of a group are skipped (`keys NAME add`)."""
    found: Any = typer.main.get_command(app)
    for word in words:
        found = getattr(found, "commands", {}).get(word, found)
    found = getattr(found, "commands", {}).get(getattr(found, "default_command", None), found)
    return {name for parameter in found.params for name in parameter.opts} | {"--help"}


def shown_commands(text: str) -> Iterator[list[str]]:
    """Each call of slurminfer in code, as words. Fenced blocks hold specs and programs, which have none."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    code = re.findall(r"^ {4,}(.*)$", text, re.MULTILINE) + re.findall(r"`([^`]+)`", text)
    for line in code:
        if "benchmarks." not in line:  # whose --router takes "slurminfer" as a value
            yield from (call.split() for call in re.findall(r"(?<![\w~/-])slurminfer ([^#|;)\"]+)", line))


@pytest.mark.parametrize("page", HANDWRITTEN, ids=relative)
def test_the_options_that_are_shown_exist(page):
    unknown = []
    for words in shown_commands(page.read_text(encoding="utf-8")):
        given = {word.strip("[]") for word in words if word.strip("[]").startswith("--")}
        unknown += [f"slurminfer {' '.join(words)}: {option}" for option in given - options_of(words)]
    assert unknown == []
