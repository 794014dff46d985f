"""The house rules that a machine can check."""

import ast
import graphlib
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
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
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


def imported_modules(file: Path, known: set[str]) -> set[str]:
    """Our own modules that `file` imports, wherever in the file: in functions and for type checkers too."""
    own = file.relative_to(HOUSE).with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join([*own[: len(own) - node.level], *([node.module] if node.module else [])])
            names = {f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names}
            found |= names & known
    return found - {".".join(own)}


def test_no_import_leads_back_to_where_it_began():
    files = {file for part in MAY_IMPORT for file in (HOUSE / part).rglob("*.py")}
    names = {".".join(file.relative_to(HOUSE).with_suffix("").parts): file for file in files}
    graph = {name: imported_modules(file, set(names)) for name, file in names.items()}
    assert sum(map(len, graph.values())) > len(files), "imports are found at all"
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the modules of a cycle


def test_every_part_is_linked_into_the_import_namespace():
    for part in MAY_IMPORT:
        assert (HOUSE / "src/slurminfer" / part).resolve() == HOUSE / part


def test_the_command_line_starts_without_heavy_imports():
    code = "import sys, slurminfer.cli; print('\\n'.join(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    ).stdout.split()
    assert not HEAVY & set(loaded)


def test_a_status_starts_without_what_asks_a_router_and_what_runs_a_worker():
    """People look often, and each look starts a command."""
    code = "import sys, slurminfer.jobs.serve.status.status; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert not {"httpx", "cryptography", "prometheus_client", "slurminfer.nodes.agent.head"} & set(done.stdout.split())


def lacks_encoding(call: ast.Call) -> bool:
    """Whether text is read or written as the locale says, where ruff's PLW1514 does not see it.

    That is the output of programs, and files whose paths have no type annotation close by.
    """
    given = {word.arg: word.value for word in call.keywords}
    if "encoding" in given:
        return False
    is_text = any(isinstance(given.get(word), ast.Constant) for word in ("text", "universal_newlines"))
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    return is_text or (name, len(call.args)) in (("read_text", 0), ("write_text", 1))


def test_no_text_depends_on_the_locale():
    folders = (*MAY_IMPORT, "benchmarks", "examples")
    files = [HOUSE / "src/slurminfer/cli.py", *(file for folder in folders for file in (HOUSE / folder).rglob("*.py"))]
    files += (HOUSE / "docs").glob("*.py")  # and none below: the site that `make docs` builds has copies of tests
    calls = [
        f"{file.relative_to(HOUSE)}:{node.lineno}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and lacks_encoding(node)
    ]
    assert calls == []
