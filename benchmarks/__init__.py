"""Programs that measure. Before PyTorch is imported, this process is set up as an engine's is."""

import os

from slurminfer.core.machine.libraries import prepare

GIVEN = dict(os.environ)  # what peers are started with
prepare()
