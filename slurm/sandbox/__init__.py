"""`slurminfer sandbox`: a real Slurm of several nodes on one Debian machine, to try slurminfer in and to test it in."""

from .box import DEFAULT_DIRECTORY, Sandbox, SandboxStatus
from .system import install

__all__ = ["DEFAULT_DIRECTORY", "Sandbox", "SandboxStatus", "install"]
