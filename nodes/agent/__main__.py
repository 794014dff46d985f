"""`python -m slurminfer.nodes.agent RUN WORKER`: one worker as a process of its own."""

import sys

from .entry import main

if __name__ == "__main__":
    sys.exit(main())
