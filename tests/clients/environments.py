"""An environment of its own for each client, with exactly the versions that its folder names.

A folder has requirements.in (what is wanted) and requirements.txt (everything that comes with it, pinned), or
package.json and package-lock.json, and check.py or check.mjs.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
HOUSE = FOLDER.parents[1]
ENVIRONMENTS = HOUSE / ".venv-clients"
_TOOLS = ENVIRONMENTS / "tools"
_STAMP = ".installed"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Client:
    """A client: the folder of its pins and of its check."""

    folder: Path

    @property
    def name(self) -> str:
        """As `make test-clients CLIENTS=NAME` has it."""
        return self.folder.name

    @property
    def home(self) -> Path:
        """Where it is installed."""
        return ENVIRONMENTS / self.name

    @property
    def is_npm(self) -> bool:
        """Whether it comes from npm; else it comes from PyPI."""
        return (self.folder / "package.json").exists()

    @property
    def pins(self) -> Path:
        """The file that pins everything."""
        return self.folder / ("package-lock.json" if self.is_npm else "requirements.txt")

    @property
    def check(self) -> list[str]:
        """The command line of its check."""
        if (self.folder / "check.mjs").exists():
            return [str(_TOOLS / "bin/node"), str(self.home / "check.mjs")]
        python = _TOOLS / "bin/python" if self.is_npm else self.home / "bin/python"
        return [str(python), str(self.folder / "check.py")]

    @property
    def path(self) -> str:
        """PATH with its programs first."""
        own = self.home / ("node_modules/.bin" if self.is_npm else "bin")
        return f"{own}:{_TOOLS / 'bin'}:{os.environ['PATH']}"

    def versions(self) -> dict[str, str]:
        """The packages that are wanted, and the versions that are pinned."""
        if self.is_npm:
            packages = json.loads(self.pins.read_text(encoding="utf-8"))["packages"]
            return {name: packages[f"node_modules/{name}"]["version"] for name in packages[""]["dependencies"]}
        pinned = {_plain(name): version for name, version in _PIN.findall(self.pins.read_text(encoding="utf-8"))}
        return {name: pinned[_plain(name)] for name in _wanted(self.folder / "requirements.in")}


def clients() -> list[Client]:
    """All of them, by name."""
    found = {path.parent for path in FOLDER.glob("*/check.*")}
    return [Client(folder) for folder in sorted(found)]


def select(names: list[str]) -> list[Client]:
    """The clients of these names; all if there are none. Raises ValueError, which lists them, for an unknown one."""
    every = {client.name: client for client in clients()}
    unknown = [name for name in names if name not in every]
    if unknown:
        raise ValueError(f"no client {', '.join(map(repr, unknown))}; there are {', '.join(every)}")
    return [every[name] for name in names or every]


def install(client: Client) -> None:
    """Make its environment, unless the one there has these pins. Raises CalledProcessError where that fails."""
    _ensure_tools()
    stamp = client.home / _STAMP
    made_of = _digest(client.pins)
    if not (stamp.exists() and stamp.read_text(encoding="utf-8") == made_of):
        shutil.rmtree(client.home, ignore_errors=True)
        (_install_npm if client.is_npm else _install_python)(client)
        stamp.write_text(made_of, encoding="utf-8")
    if client.is_npm:
        for path in (
            *client.folder.glob("*.mjs"),
            FOLDER / "lib/tried.mjs",
        ):  # Node looks for packages beside the program
            shutil.copy(path, client.home)


def refresh(client: Client) -> None:
    """Pin the newest versions that its folder allows. Raises CalledProcessError where that fails."""
    _ensure_tools()
    if client.is_npm:
        options = [
            "--package-lock-only",
            "--save-exact",
            "--omit-lockfile-registry-resolved",
            "--no-audit",
            "--no-fund",
        ]
        _run([str(_TOOLS / "bin/npm"), "install", *options, *_newest(client)], client.folder)
        return
    options = ["--upgrade", "--no-header", "--no-annotate", "--no-emit-index-url", "--python-version", "3.11"]
    argv = [str(_TOOLS / "bin/uv"), "pip", "compile", "--quiet", *options, "requirements.in", "-o", "requirements.txt"]
    _run([*argv, *_overrides(client)], client.folder)


def _newest(client: Client) -> list[str]:
    """What npm is to install for the newest versions of what is wanted."""
    wanted = json.loads((client.folder / "package.json").read_text(encoding="utf-8"))["dependencies"]
    return [f"{name}@latest" for name in wanted]


def _overrides(client: Client) -> list[str]:
    """What it is installed without, where it says so in overrides.txt."""
    path = client.folder / "overrides.txt"
    return ["--override", str(path)] if path.exists() else []


def _install_python(client: Client) -> None:
    uv = str(_TOOLS / "bin/uv")
    _run([uv, "venv", "--quiet", "--python", sys.executable, str(client.home)])
    python = str(client.home / "bin/python")
    _run([uv, "pip", "install", "--quiet", "--python", python, "-r", str(client.pins), *_overrides(client)])


def _install_npm(client: Client) -> None:
    client.home.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(client.folder / name, client.home)
    # Not `npm ci`: it refuses locks that lack packages of other platforms, which no registry may have.
    _run([str(_TOOLS / "bin/npm"), "install", "--no-audit", "--no-fund", "--loglevel=error"], client.home)


def _ensure_tools() -> None:
    """uv, which installs from PyPI, and Node with npm."""
    stamp, pins = _TOOLS / _STAMP, FOLDER / "tools.txt"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == _digest(pins):
        return
    shutil.rmtree(_TOOLS, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(_TOOLS)])
    _run([str(_TOOLS / "bin/pip"), "install", "--quiet", "-r", str(pins)])
    stamp.write_text(_digest(pins), encoding="utf-8")


def _run(argv: list[str], folder: Path = HOUSE) -> None:
    path = f"{_TOOLS / 'bin'}:{os.environ['PATH']}"
    subprocess.run(argv, cwd=folder, env={**os.environ, "PATH": path}, check=True)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _wanted(path: Path) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [re.split(r"[\[<>=!~;\s]", line)[0] for line in lines if line]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
