"""Fixtures of all parts: a real Slurm, brought up once per session for the tests marked `slurm`."""

import gc
import itertools
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from slurminfer.core.errors import SlurmError
from slurminfer.core.machine.libraries import prepare
from slurminfer.slurm.sandbox import Sandbox
from slurminfer.slurm.sandbox.system import require_packages, require_root

prepare()  # as for an engine, before PyTorch is imported
hypothesis.settings.register_profile("slurminfer", deadline=None)  # how long an example takes is the machine's affair
hypothesis.settings.load_profile("slurminfer")
_start = subprocess.Popen.__init__
TESTS = Path(__file__).parent
SANDBOXED = ("integration", "security", "slurm")  # where the Makefile looks for tests of a sandbox
SANDBOX_PARENT = Path("/var/tmp")  # pytest's own temporary directories are closed to other users


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage among modules and tests, which all stay: neither while they are found nor later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use a sandbox of Slurm, as their fixtures and the marker `slurm` tell; slow files first.

    So that at the end, when one worker after the other has nothing left to do, only short files are still running. A
    test that may take long says so by its timeout.
    """
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if {"sandbox", "sandbox_directory"} & fixtures or item.get_closest_marker("slurm"):
            if item.path.relative_to(TESTS).parts[0] not in SANDBOXED:
                raise pytest.UsageError(f"{item.nodeid} needs a sandbox: expected it in one of {SANDBOXED} of tests/")
            item.add_marker(pytest.mark.sandbox)
    items.sort(key=_shortness)


def _shortness(item: pytest.Item) -> tuple[int, float]:
    """Sorts tests by how long they may take, the longest first."""
    timeout = item.get_closest_marker("timeout")
    marks = {"process", "slow"} & {mark.name for mark in item.iter_markers()}
    return -len(marks), -float(timeout.args[0]) if timeout else 0.0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let no test start programs of ours without a mark that says so."""
    with pytest.MonkeyPatch.context() as patch:
        if not {"process", "sandbox"} & {mark.name for mark in item.iter_markers()}:
            patch.setattr(subprocess.Popen, "__init__", _refuse_ours)
        return (yield)


def _refuse_ours(process: "subprocess.Popen[Any]", args: Any, *rest: Any, **options: Any) -> None:
    words = [str(word) for word in args] if isinstance(args, list | tuple) else [str(args)]
    ours = any(flag == "-m" and module.startswith("slurminfer") for flag, module in itertools.pairwise(words))
    assert not ours, f"mark this test with pytest.mark.process: it starts {words}"
    _start(process, args, *rest, **options)


@pytest.fixture(scope="session")
def lend_library() -> Callable[[Path], None]:
    """Gives a home of slurminfer's the native engine's library, which its first engine would compile for seconds."""
    from .support.compiled_library import compiled_library

    path = compiled_library()

    def lend(home: Path) -> None:
        if path is not None:
            (home / path.parent.name).mkdir(parents=True, exist_ok=True, mode=0o700)
            shutil.copy(path, home / path.parent.name / path.name)

    return lend


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Lets SIGINT reach children: they inherit that it is ignored, as it is below a shell's background job."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def sandbox_directory() -> Iterator[Path]:
    """A directory in which sandboxes can live; skips the test where none can."""
    try:
        require_root()
        require_packages()
    except SlurmError as error:
        pytest.skip(str(error))
    directory = Path(tempfile.mkdtemp(prefix="slurminfer-test-", dir=SANDBOX_PARENT))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def sandbox(sandbox_directory: Path) -> Iterator[Sandbox]:
    """A running Slurm of four nodes."""
    box = Sandbox(sandbox_directory / "box")
    box.start()
    yield box
    box.stop()


@pytest.fixture(scope="session")
def ordinary_user(sandbox: Sandbox) -> str:
    """The name of a user who is not root and may submit jobs."""
    return sandbox.ensure_user("slurminfer-test").pw_name


@pytest.fixture
def in_sandbox(sandbox: Sandbox, ordinary_user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets this process ask the sandbox's Slurm; the jobs of the ordinary user are its own as well as root's."""
    for name, value in sandbox.env().items():
        monkeypatch.setenv(name, value)
    users = f"--user={os.getuid()},{pwd.getpwnam(ordinary_user).pw_uid}"
    monkeypatch.setattr("slurminfer.slurm.client.own_jobs", lambda: users)


@pytest.fixture
def shared(sandbox_directory: Path, sandbox: Sandbox, ordinary_user: str) -> Path:
    """A new directory of the ordinary user that every node sees."""
    directory = sandbox_directory / secrets.token_hex(4)
    directory.mkdir()
    account = sandbox.ensure_user(ordinary_user)
    os.chown(directory, account.pw_uid, account.pw_gid)
    return directory
