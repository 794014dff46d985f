"""What is said of a command line that makes no sense: one line, and the form that the command has."""

import re

import typer
from typer.core import TyperGroup

from .text import shown


def explanation(error: typer.TyperException) -> str:
    """What is wrong, the commands that there are where one is missing, and how the command is called.

    Empty where typer has shown the help already, because a group was called without anything.
    """
    context: typer.Context | None = getattr(error, "ctx", None)
    wrong = " ".join(error.format_message().split()).rstrip(".")
    if context is None or not wrong:
        return shown(wrong and f"error: {wrong}")
    if isinstance(context.command, TyperGroup) and " command" in wrong:
        wrong += f" (there are: {', '.join(context.command.list_commands(context))})"
    usage = re.sub(r"[{}]", "", " ".join(context.get_usage().split()).removeprefix("Usage: "))
    return shown(f"error: {wrong}\nusage: {usage}\n'{context.command_path} --help' says more")
