"""A laptop needs few packages for a tunnel: docs/guide/laptop.md names them."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs/guide/laptop.md"
# What these bring along.
_OF_TYPER = {"rich", "shellingham", "annotated_doc", "typing_extensions", "click"}
_LIST = """
import sys
before = set(sys.modules)  # what an environment loads at each start
import slurminfer.cli, slurminfer.jobs.tunnel.command, slurminfer.jobs.tunnel.announce
found = {name.partition(".")[0] for name, module in sys.modules.items()
         if name not in before and "/site-packages/" in (getattr(module, "__file__", None) or "")}
print(*found)
"""


def test_the_tunnel_needs_no_more_packages_than_the_guide_says():
    done = subprocess.run([sys.executable, "-c", _LIST], capture_output=True, encoding="utf-8", check=True)
    told = re.search(r"pip install (typer [^#\n]*)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert told is not None
    packages = {name.replace("-", "_") for name in told[1].split()}
    assert set(done.stdout.split()) - _OF_TYPER == packages
