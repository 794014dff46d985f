"""Texts or token ids, one or several: the form of `prompt` and of `input`."""

from ..errors import ApiError, short

Prompts = str | list[str | int | list[int]]


def prompts_of(value: Prompts, param: str) -> list[str | list[int]]:
    """One entry for each: text, or token ids. Raises ApiError, which names the field `param`, for a mixed list."""
    if isinstance(value, str):
        return [value]
    kinds = {type(item) for item in value}
    if kinds == {int}:
        return [[item for item in value if isinstance(item, int)]]
    if len(kinds) != 1:
        expected = "a string, a list of strings, a list of token ids or a list of such lists, and not empty"
        raise ApiError(400, f"{param} = {short(value)}: expected {expected}", param=param)
    return [item for item in value if not isinstance(item, int)]
