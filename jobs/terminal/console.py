"""The two consoles that commands print to. They follow `sys.stdout` and `sys.stderr` where those are replaced."""

from rich.console import Console

stdout = Console(highlight=False, soft_wrap=True)  # results; lines stay whole, so that paths and commands can be copied
stderr = Console(stderr=True, highlight=False)  # progress
