"""What a request says of choices that another server has begun: `continue_token_ids` and `finished_choices`."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ApiError, short

_PARAM = "continue_token_ids"
TokenIds = list[int | list[int]]  # of the only choice, or a list for each of them


@dataclass(frozen=True, slots=True)
class Told:
    """What another server has told of one choice. `param`: where in the request its tokens are."""

    tokens: Sequence[int] = ()
    is_finished: bool = False
    param: str = _PARAM


def told_choices(ids: TokenIds | None, finished: Sequence[int] | None, choices: int) -> list[Told]:
    """What has been told of each of so many choices; of none of them where nothing is continued. Raises ApiError."""
    if not ids:
        if finished:
            message = f"finished_choices = {short(finished)}: only allowed with continue_token_ids"
            raise ApiError(400, message, param="finished_choices")
        return [Told()] * choices
    wrong = next((index for index in finished or () if not 0 <= index < choices), None)
    if wrong is not None:
        message = f"finished_choices: index {short(wrong)}: expected 0 to {choices - 1}"
        raise ApiError(400, message, param="finished_choices")
    over = frozenset(finished or ())
    return [Told(tokens, index in over, param) for index, (param, tokens) in enumerate(_lists(ids, choices))]


def _lists(ids: TokenIds, choices: int) -> list[tuple[str, list[int]]]:
    """The tokens of each choice, and their names. Raises ApiError."""
    flat = [id for id in ids if isinstance(id, int)]
    lists = [id for id in ids if not isinstance(id, int)]
    if flat and lists:
        expected = "token ids, or a list of token ids for each choice"
        raise ApiError(400, f"{_PARAM} = {short(ids)}: expected {expected}", param=_PARAM)
    if flat and choices > 1:
        message = f"{_PARAM} has no lists: expected a list of token ids for each of the {choices} choices"
        raise ApiError(400, message, param=_PARAM)
    if lists and len(lists) != choices:
        message = f"{_PARAM} has {len(lists)} lists: expected {choices}, one for each choice"
        raise ApiError(400, message, param=_PARAM)
    return [(_PARAM, flat)] if flat else [(f"{_PARAM}[{index}]", tokens) for index, tokens in enumerate(lists)]
