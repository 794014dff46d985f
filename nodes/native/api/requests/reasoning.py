"""What a chat request says of thinking."""

from collections.abc import Container, Mapping
from typing import Any, Literal

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
_SWITCHES = ("enable_thinking", "thinking")  # of templates


def template_variables(given: Mapping[str, Any], effort: Effort | None, known: Container[str]) -> dict[str, Any]:
    """The client's variables of the template, with the effort where the template knows of it.

    `none` also turns thinking off where the template has a switch for it that the client has not set. `known`: the
    names that the template looks at.
    """
    variables = dict(given)
    if effort is None:
        return variables
    if "reasoning_effort" in known:
        variables.setdefault("reasoning_effort", effort)
    if effort == "none":
        for name in _SWITCHES:
            if name in known:
                variables.setdefault(name, False)
    return variables
