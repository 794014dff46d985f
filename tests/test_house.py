"""The house rules that a machine can check."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent
MAY_IMPORT = {
    "core": set(),
    "quant": {"core"},
    "nodes": {"core", "quant"},
    "slurm": {"core"},
    "router": {"core"},
    "jobs": {"core", "quant", "nodes", "slurm", "router"},
}
HEAVY = {"torch", "transformers", "submitit", "aiohttp", "gguf", "huggingface_hub", "numpy", "httpx", "rich.table"}


def imported_parts(file: Path) -> set[str]:
    """Our own parts that `file` imports, wherever in the file."""
    depth = len(file.relative_to(HOUSE).parts)
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            module = node.module or ""
            found |= {module.split(".")[0]} if module else {alias.name for alias in node.names}
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
        assert not any(name.split(".")[0] == "slurminfer" for name in names), f"{file}: imports must be relative"
    return found


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_imports_point_one_way(part):
    for file in (HOUSE / part).rglob("*.py"):
        assert imported_parts(file) <= MAY_IMPORT[part] | {part}, file


def test_every_part_is_linked_into_the_import_namespace():
    for part in MAY_IMPORT:
        assert (HOUSE / "src/slurminfer" / part).resolve() == HOUSE / part


def test_the_command_line_starts_without_heavy_imports():
    code = "import sys, slurminfer.cli; print('\\n'.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not HEAVY & set(loaded)
