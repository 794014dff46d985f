"""The subprocess runner: output, and each way to fail."""

import subprocess
import sys

import pytest

from slurminfer.core.errors import CommandError
from slurminfer.core.processes.process import describe_exit, run


def test_output_and_input():
    assert run(["cat"], stdin="text") == "text"


def test_a_failure_carries_code_and_stderr():
    with pytest.raises(CommandError, match="exit code 3: no such partition") as caught:
        run([sys.executable, "-c", "import sys; sys.exit(print('no such partition', file=sys.stderr) or 3)"])
    assert caught.value.returncode == 3


def test_a_command_that_is_not_there():
    with pytest.raises(CommandError, match="no-such-command: command not found"):
        run(["no-such-command"])


def test_a_command_that_hangs():
    with pytest.raises(CommandError, match=r"no answer within 0\.2 s"):
        run(["sleep", "60"], timeout_s=0.2)


@pytest.mark.parametrize(
    ("returncode", "how"),
    [
        (3, "exited with 3"),
        (-9, "killed by SIGKILL (out of memory?)"),
        (-11, "killed by SIGSEGV"),
        (-40, "killed by signal 40"),  # one of the real-time signals, which have no names
    ],
)
def test_how_a_process_has_ended(returncode, how):
    assert describe_exit(returncode) == how


def test_an_exit_at_once_writes_what_was_printed_and_takes_nothing_apart():
    code = (
        "import atexit, threading; from slurminfer.core.processes.process import exit_at_once;"
        "atexit.register(print, 'apart'); threading.Thread(target=threading.Event().wait).start();"
        "print('said', end=''); exit_at_once(3)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (3, "said", "")
