"""One look at this machine, as a process of this job sees it."""

import os
from collections.abc import Mapping

from ...core.site.machine import Machine
from .folders import folders
from .hardware import gpus, memory, processor
from .network import network
from .software import software


def look(environ: Mapping[str, str] = os.environ, measure: bool = True) -> Machine:
    """What the machine has and gives to this process. Takes some seconds.

    Args:
        environ: the environment, from which folders and devices are known.
        measure: write some MiB into scratch folders, to see how fast they are.
    """
    return Machine(
        processor=processor(),
        memory=memory(environ),
        gpus=gpus(environ),
        network=network(),
        folders=folders(environ, measure),
        software=software(),
    )
