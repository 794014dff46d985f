"""What is left to the collection of garbage: objects that hold each other."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def garbage() -> Iterator[set[type]]:
    """Within it nothing is collected. At its end, the types of ours and of uvloop among all that could be."""
    found: set[type] = set()
    gc.collect()
    gc.freeze()  # what the test did not make is not looked at again, now or later: PyTorch alone has a million objects
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found |= {type(thing) for thing in gc.garbage if type(thing).__module__.startswith(("slurminfer.", "uvloop."))}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
