"""The two consoles that commands print to. They follow `sys.stdout` and `sys.stderr` where those are replaced."""

from typing import Any

from rich.console import Console

from .text import shown


class TextConsole(Console):
    """Prints strings as they are: no markup, and nothing in them that a terminal would obey. Styles come as `Text`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """As `Console.print`."""
        super().print(*(shown(item) if isinstance(item, str) else item for item in objects), **options)


stdout = TextConsole(soft_wrap=True)  # results; lines stay whole, so that paths and commands can be copied
stderr = TextConsole(stderr=True)  # progress
