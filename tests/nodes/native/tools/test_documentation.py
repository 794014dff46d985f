"""The page about tools has what the tables in the code have."""

from pathlib import Path

from slurminfer.nodes.native.api.reasoning.tags import THINKING
from slurminfer.nodes.native.api.tools.families import FAMILIES

PAGE = (Path(__file__).parents[4] / "docs/engine/tools.md").read_text(encoding="utf-8").replace("\\|", "|")


def test_the_page_has_all_families():
    for family in FAMILIES:
        assert f"| `{family.name}` | {family.models}" in PAGE


def test_the_page_has_all_tags():
    for tags in THINKING:
        assert f"| `{tags.begin}`, `{tags.end}` | {tags.models} |" in PAGE
