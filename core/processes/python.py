"""Command lines of Python programs that import nothing from the folder in which somebody has typed a command.

`python -m` looks for modules in the current folder first. Commands are typed in folders that other users may write,
such as a group's project or /tmp, and a file `torch.py` there would be run.
"""

import sys

SAFE_PATH = "-P"
SAFE_PATH_ENV = {"PYTHONSAFEPATH": "1"}  # the same for a Python that others start; before 3.11 it changes nothing


def module_argv(module: str, *words: str) -> list[str]:
    """The command line that runs a module with this Python."""
    return [sys.executable, SAFE_PATH, "-m", module, *words]
