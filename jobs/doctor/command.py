"""`slurminfer doctor`: learn what a site gives to jobs, keep it in the site profile, and print it.

The life of a command: `examine` (examine.py) asks Slurm, plans a job for each partition (requests.py), and waits for
them (watch.py, visit.py); on the nodes runs entry.py. What the profile means is said by findings.py and routes.py.
"""

import shutil
import sys

import msgspec

from ...core.errors import UsageError
from ...core.files import encode_json
from ...core.site.doctor import SiteProfile
from ...core.site.store import read_site, write_site
from ...slurm.submit import available
from ..terminal.console import stderr
from .examine import Wish, examine, examine_here, merged
from .findings import findings


def run(wish: Wish, local: bool, as_json: bool) -> None:
    """Learn, keep and print. Raises UsageError, SlurmError, RunDirectoryError."""
    if local and (wish.partitions or wish.account):
        raise UsageError("--local looks at this machine only: expected no --partition and no --account")
    why_local = "--local" if local else "" if available() else _absent_slurm()
    if why_local and wish.partitions:
        raise UsageError(f"--partition {wish.partitions[0]!r}: {why_local}")
    found = examine_here(why_local) if why_local else examine(wish, stderr.print)
    profile = merged(found, read_site())
    kept = write_site(profile)
    if as_json:
        sys.stdout.write(_json(profile))
        return
    from .table import print_site

    print_site(profile, kept)


def _absent_slurm() -> str:
    if shutil.which("sbatch") is None:
        return "there is no Slurm here: sbatch is not on PATH"
    return "Slurm does not answer, as 'scontrol ping' shows"


def _json(profile: SiteProfile) -> str:
    """The profile, with what follows from it."""
    return encode_json({**msgspec.to_builtins(profile), "findings": msgspec.to_builtins(findings(profile))})
