"""The documentation: generated pages are up to date, every key is explained, links lead somewhere, the site builds."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*/*.md")), DOCS / "index.md"]


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


def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    words = [sys.executable, "-m", "sphinx", "--fail-on-warning", "-q", str(DOCS), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
