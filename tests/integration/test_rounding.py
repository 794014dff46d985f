"""The rule by which answers of differently rounded sums are compared."""

import pytest
from openai.types import CompletionChoice

from .rounding import agrees

REFERENCE = CompletionChoice.model_validate(
    {
        "finish_reason": "length",
        "index": 0,
        "text": " one two three",
        "logprobs": {
            "tokens": [" one", "<end>", " two", " three"],
            "top_logprobs": [
                {" one": -0.1, " a": -3.0},
                {"<end>": -0.1, " a": -3.0},
                {" two": -0.70, " more": -0.71},
                {" three": -0.5, " four": -1.1},
            ],
        },
    }
)


@pytest.mark.parametrize(
    ("text", "agreed"),
    [
        (" one two three", True),
        (" one more thing", True),  # a tie
        (" a two three", False),
        (" one two four", False),
        (" one other", False),  # of neither
        (" one two", False),
        (" one two three and", False),
    ],
)
def test_only_ties_may_be_told_otherwise(text, agreed):
    assert agrees(text, REFERENCE) == agreed
