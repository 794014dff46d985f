"""The engine as a child process."""

import signal
import sys

import pytest

from slurminfer.core.logs.text import PLAIN, LogFormat
from slurminfer.core.machine import memory
from slurminfer.nodes.agent.process import EngineProcess
from slurminfer.nodes.engines.table import ADAPTERS

from ...support.waiting import eventually

pytestmark = pytest.mark.process

ANSWERING = """
import signal
signal.signal(signal.SIGUSR1, lambda *_: print("still here", flush=True))
print("up", flush=True)
while True:
    signal.pause()
"""


def test_the_walltime_s_signal_is_not_the_engine_s(tmp_path):
    engine = EngineProcess([sys.executable, "-c", ANSWERING], {}, tmp_path / "log")
    try:
        eventually(lambda: "up" in (tmp_path / "log").read_text())
        engine._process.send_signal(signal.SIGUSR2)
        engine._process.send_signal(signal.SIGUSR1)
        eventually(lambda: "still here" in (tmp_path / "log").read_text() or engine.exit_code() is not None)
        assert engine.exit_code() is None
    finally:
        engine.stop()
    assert engine.exit_code() == -signal.SIGTERM


def exit_reason_of(log: str, tmp_path, log_format: LogFormat = PLAIN) -> str:
    """Of an engine that has said this, and was then killed."""
    program = f"import os; print({log!r}, flush=True); os.kill(os.getpid(), 9)"
    engine = EngineProcess([sys.executable, "-c", program], {}, tmp_path / "log", log_format)
    eventually(lambda: engine.exit_code() is not None)
    reason = engine.exit_reason()
    engine.stop()
    return reason


def test_who_is_killed_did_not_say_why(tmp_path):
    said = exit_reason_of("ImportError: this was long ago", tmp_path)
    assert said == f"engine killed by SIGKILL (out of memory?) (log: {tmp_path / 'log'})"


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("os.kill(os.getpid(), 9)", "engine killed by SIGKILL: out of memory, the limit of its cgroup is 1.50 GiB"),
        (
            "sys.exit('error: rank 1 on n1 is gone: killed by SIGKILL (out of memory?)')",
            "engine exited with 1: error: rank 1 on n1 is gone: killed by SIGKILL: out of memory, the limit of its "
            "cgroup is 1.50 GiB",
        ),
        (
            "sys.exit('error: a child failed')",
            "engine exited with 1: error: a child failed; a process of its cgroup was killed by SIGKILL: out of "
            "memory, the limit of its cgroup is 1.50 GiB",
        ),
        ("sys.exit(0)", "engine exited with 0"),
    ],
)
def test_an_engine_that_the_kernel_has_killed_had_too_little_memory(program, said, tmp_path, monkeypatch):
    counts = iter((4, 5))
    monkeypatch.setattr(memory, "oom_kills", lambda root: next(counts))
    monkeypatch.setattr(memory, "cgroup_limit", lambda root: 3 << 29)
    engine = EngineProcess([sys.executable, "-c", f"import os, sys; {program}"], {}, tmp_path / "log")
    eventually(lambda: engine.exit_code() is not None)
    assert engine.exit_reason() == f"{said} (log: {tmp_path / 'log'})"
    engine.stop()


def test_sglang_says_why_it_kills_itself(tmp_path):
    """Lines of SGLang 0.5.16 whose weights could not be read."""
    said = exit_reason_of(
        "[2026-11-28 19:18:44] Scheduler hit an exception: Traceback (most recent call last):\n"
        '  File "loader.py", line 1, in load\n'
        "PermissionError: [Errno 13] Permission denied: 'model.safetensors'\n\n"
        "[2026-11-28 19:18:44] Received sigquit from a child process. It usually means the child failed.",
        tmp_path,
        ADAPTERS["sglang"].log_format,
    )
    assert said.startswith("engine ended itself: PermissionError: [Errno 13] Permission denied: 'model.safetensors'")


@pytest.mark.parametrize(("status", "code"), [(137, -9), (143, -15), (128, 128), (1, 1), (255, 255)])
def test_what_runs_the_engine_as_its_child_tells_the_signal_by_its_exit_status(status, code, tmp_path):
    argv = [sys.executable, "-c", f"import os; os._exit({status})"]
    engine = EngineProcess(argv, {}, tmp_path / "log", has_shell_status=True)
    assert eventually(lambda: engine.exit_code()) == code
    assert ("killed by SIGKILL" in engine.exit_reason()) == (code == -9)
    engine.stop()


def test_what_is_to_be_done_after_the_end_is_done_by_stop(tmp_path):
    ended = []
    engine = EngineProcess([sys.executable, "-c", ""], {}, tmp_path / "log", after=lambda: ended.append(1))
    assert not ended
    engine.stop()
    assert ended
