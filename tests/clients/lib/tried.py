"""What the check of a client says: one line for each thing that it has tried. Only the standard library."""

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

HERE = Path(sys.argv[0]).resolve().parent  # the folder of the check
MODEL = os.environ["MODEL"]
SCRIPTED_URL = os.environ["SCRIPTED_URL"]  # of the deployment whose engine plays a script, without /v1
SCRIPTED_KEY = os.environ["SCRIPTED_KEY"]
SCRIPTED_MODEL = os.environ["SCRIPTED_MODEL"]
_failed: list[str] = []


def tried(what: str) -> Callable[[Callable[[], object]], None]:
    """Run the decorated function at once, and print `ok: WHAT`, or `FAILED: WHAT: why` with a traceback on stderr."""

    def run(attempt: Callable[[], object]) -> None:
        try:
            attempt()
        except Exception as error:
            traceback.print_exc()
            _failed.append(what)
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
            frames = traceback.extract_tb(error.__traceback__)
            line = [frame.lineno for frame in frames if Path(frame.filename).parent == HERE][-1]
            print(f"FAILED: {what}: {type(error).__name__} {lines[0][:300]} (line {line})", flush=True)
        else:
            print(f"ok: {what}", flush=True)

    return run


def expect(condition: object, what: object) -> None:
    """Raise AssertionError that shows `what` came, where the condition does not hold."""
    if not condition:
        raise AssertionError(f"got {what!r}")


def recipe(name: str = "recipe.py", **env: str) -> str:
    """What the recipe of the guide prints. Raises AssertionError where it fails."""
    path = HERE / name
    argv = ["bash", "-euo", "pipefail", str(path)] if path.suffix == ".sh" else [sys.executable, str(path)]
    given = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **env}
    done = subprocess.run(argv, env=given, capture_output=True, encoding="utf-8", timeout=240, stdin=subprocess.DEVNULL)
    sys.stderr.write(done.stderr)
    expect(done.returncode == 0, (done.stdout + done.stderr)[-600:])
    return done.stdout


def scripted() -> dict[str, str]:
    """The environment in which a recipe asks the scripted engine in place of the model."""
    return {
        "OPENAI_BASE_URL": f"{SCRIPTED_URL}/v1", "OPENAI_API_KEY": SCRIPTED_KEY, "MODEL": SCRIPTED_MODEL,
        "ANTHROPIC_BASE_URL": SCRIPTED_URL, "ANTHROPIC_API_KEY": SCRIPTED_KEY, "CONTEXT": "200000",
    }  # fmt: skip


def finish() -> None:
    """Exit with 1 if something failed."""
    sys.exit(1 if _failed else 0)
