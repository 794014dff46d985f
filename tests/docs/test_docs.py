"""The documentation: generated pages are up to date, every key is explained, links lead somewhere, the site builds."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from slurminfer.nodes.native.api.tools.families import FAMILIES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*/*.md")), *sorted(DOCS.glob("*.md"))]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    found = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_code_says(generate):
    assert (DOCS / "reference/spec.md").read_text() == generate.spec_page(), "run 'make docs'"
    assert (DOCS / "reference/commands.md").read_text() == generate.commands_page(), "run 'make docs'"
    assert (DOCS / "reference/api-fields.md").read_text() == generate.api_fields_page(), "run 'make docs'"
    assert (DOCS / "reference/responses-fields.md").read_text() == generate.responses_fields_page(), "run 'make docs'"
    assert (DOCS / "reference/failures.md").read_text() == generate.failures_page(), "run 'make docs'"


def test_every_key_of_a_spec_is_explained(generate):
    for name, kind in generate.SECTIONS.items():
        explained = generate.explanations(kind)
        assert explained.keys() == set(kind.__struct_fields__), name
        assert [key for key, text in explained.items() if not text] == [], name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_commands_lead_somewhere(page):
    text = page.read_text()
    links = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    missing = [link for link in links if link and "://" not in link and not (page.parent / link).exists()]
    missing += [
        name
        for name in re.findall(r"\b(?:examples|benchmarks|tests|requirements)/[\w/.-]+\.\w+", text)
        if not (ROOT / name).exists()
    ]
    assert missing == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_headings_that_are_there(page):
    links = re.findall(r"\]\(([^)\s:]*\.md)?#([^)\s]+)\)", page.read_text(encoding="utf-8"))
    found = {path: anchors(page.parent / path if path else page) for path, _ in links}
    missing = [f"{path}#{anchor}" for path, anchor in links if anchor not in found[path]]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_tables_are_in_one_piece_under_their_heads(page):
    tables = re.findall(r"(?:^ *\|.*\n)+", page.read_text(encoding="utf-8"), re.MULTILINE)
    broken = [table.splitlines()[0] for table in tables if not re.match(r" *\|.*\n *(?:\|---)+\|\n", table)]
    assert broken == []


def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    words = [sys.executable, "-m", "sphinx", "--fail-on-warning", "-q", str(DOCS), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_formats_of_tool_calls_are_as_many_as_the_readme_says():
    families = re.search(r"formats of (\d+) families", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert families is not None and int(families[1]) == len(FAMILIES)
    page = (DOCS / "engine/tools.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| `(\w+)` \| .* \| yes", page, re.MULTILINE)
    assert sorted(shown) == sorted(family.name for family in FAMILIES)
