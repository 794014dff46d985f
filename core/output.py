"""What our programs print, in whatever encoding their output has."""

import sys
from io import TextIOWrapper


def accept_any_text() -> None:
    """Let standard output and error write out (`\\u00e9`) what their encoding lacks, instead of raising for it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
