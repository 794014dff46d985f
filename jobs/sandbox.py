"""`slurminfer sandbox`: a Slurm to try slurminfer in, for a person at a terminal."""

from pathlib import Path

from rich.text import Text

from ..core.files import encode_json
from ..core.paths import home, make_home
from ..slurm.sandbox import DEFAULT_DIRECTORY, Sandbox, SandboxStatus, install
from .terminal.console import stdout


def start(directory: Path | None, nodes: int, real_gpus: bool, install_packages: bool) -> None:
    """Bring a sandbox up and print how to use it. Raises SlurmError."""
    if install_packages:
        install()
    make_home()
    # Root's home is closed; the deployments in it must be seen on the nodes all the same.
    sandbox = Sandbox(directory or DEFAULT_DIRECTORY, nodes, real_gpus=real_gpus, private=[home()])
    sandbox.start()
    _print(sandbox.status())
    for name, value in sandbox.env().items():
        stdout.print(f"export {name}={value}")


def stop(directory: Path | None) -> None:
    """End a sandbox with all its jobs. Raises SlurmError."""
    sandbox = Sandbox(directory or DEFAULT_DIRECTORY)
    sandbox.stop()
    _print(sandbox.status())


def status(directory: Path | None, as_json: bool) -> None:
    """Print the daemons, nodes and jobs of a sandbox. Raises SlurmError."""
    seen = Sandbox(directory or DEFAULT_DIRECTORY).status()
    if as_json:
        print(encode_json(seen), end="")
    else:
        _print(seen)


def _print(seen: SandboxStatus) -> None:
    stdout.print(f"sandbox {seen.state} in {seen.directory}, {seen.jobs} jobs")
    for daemon, runs in seen.daemons.items():
        stdout.print(Text.assemble(f"  {daemon:<12} ", "running" if runs else ("down", "red")))
    for node, state in seen.nodes.items():
        stdout.print(f"  {node:<12} {state}")
