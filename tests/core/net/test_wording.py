"""msgspec's messages in plain English."""

from typing import Annotated, Any

import msgspec
import pytest

from slurminfer.core.net.wording import plain


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (Annotated[int, msgspec.Meta(ge=1)] | None, 0, "expected an integer of at least 1"),
        (Annotated[float, msgspec.Meta(le=2)], 3, "expected a number of at most 2"),
        (Annotated[float, msgspec.Meta(gt=0)], 0, "expected a number of more than 0"),
        (int | None, "1", "expected an integer, got a string"),
        (int | float, "1", "expected a number, got a string"),
        (bool, 1, "expected true or false, got an integer"),
        (str | list[str] | None, 5, "expected a string or a list, got an integer"),
        (dict[str, Any], None, "expected an object, got null"),
        (Annotated[list[int], msgspec.Meta(min_length=1)], [], "expected a list with a length of at least 1"),
    ],
)
def test_messages_are_plain(kind: Any, value: Any, words: str) -> None:
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.convert(value, kind)
    assert plain(str(refused.value)) == words
