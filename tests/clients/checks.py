"""Runs the check of a client, and reads what it says: see lib/tried.py."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .endpoints import Endpoint
from .environments import FOLDER, Client

LIMIT_S = 900.0
_LINE = re.compile(r"^(ok|FAILED): ([^:\n]+)(?:: (.*))?$", re.MULTILINE)
_KEPT = ("LANG", "LC_ALL", "TERM", "TZ", "SSL_CERT_FILE", "TMPDIR")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check tried, and why what failed did."""

    works: list[str]
    fails: dict[str, str]


def parse(output: str, status: int | None) -> Outcome:
    """From what a check printed. `status`: with which it exited; None: it was ended when its time was over.

    A check that exits with an error and names no failure, or that has tried nothing, has failed as a whole.
    """
    lines = _LINE.findall(output)
    works = [what for word, what, _ in lines if word == "ok"]
    fails = {what: why for word, what, why in lines if word == "FAILED"}
    if status is None:
        fails["the check"] = f"not done after {LIMIT_S:g} s"
    elif status and not fails:
        last = (output.strip().splitlines() or ["no output"])[-1]
        fails["the check"] = f"exit {status}: {last}"
    elif not works and not fails:
        fails["the check"] = "nothing was tried"
    return Outcome(works, fails)


def environment(client: Client, endpoint: Endpoint, scripted: Endpoint, home: Path) -> dict[str, str]:
    """What a check is told, and nothing of the configuration of whoever runs it."""
    told = {
        "OPENAI_BASE_URL": f"{endpoint.url}/v1", "OPENAI_API_KEY": endpoint.key, "MODEL": endpoint.model,
        "ANTHROPIC_BASE_URL": endpoint.url, "ANTHROPIC_API_KEY": endpoint.key,
        "SCRIPTED_URL": scripted.url, "SCRIPTED_KEY": scripted.key, "SCRIPTED_MODEL": scripted.model,
        "HOME": str(home), "PATH": client.path, "PYTHONPATH": str(FOLDER / "lib"), "PYTHONDONTWRITEBYTECODE": "1",
        "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost",
        "DO_NOT_TRACK": "1", "SLURMINFER_PYTHON": sys.executable,
    }  # fmt: skip
    return {name: os.environ[name] for name in _KEPT if name in os.environ} | told


def run(client: Client, endpoint: Endpoint, scripted: Endpoint, model: Path, log: Path) -> Outcome:
    """Run the check in an empty home; `log` gets all that it says. `model`: the directory of the served model."""
    with tempfile.TemporaryDirectory(prefix="clients-") as folder, log.open("w", encoding="utf-8") as errors:
        env = environment(client, endpoint, scripted, Path(folder)) | {"MODEL_PATH": str(model)}
        with subprocess.Popen(
            client.check, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
            encoding="utf-8", errors="replace", start_new_session=True,
        ) as process:  # fmt: skip
            output, status = _until_done(process)
        errors.write(f"\n{output}")
    return parse(output, status)


def _until_done(process: "subprocess.Popen[str]") -> tuple[str, int | None]:
    try:
        output, _ = process.communicate(timeout=LIMIT_S)
        return output, process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return output, None
