"""What a batch asks for besides its input, and what must not change while it is resumed."""

import json

import msgspec


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """Kept in the ledger. A driver with others is refused, and told which differ."""

    model: str | None = None  # as given; None: the endpoint's only one
    prompt_column: str | None = None  # sent as a user's message, or as a prompt with completions = True
    messages_column: str | None = None  # a list of messages, or of {"from", "value"} turns
    template: str | None = None  # Jinja, its text: makes the user's message of a row's columns
    system: str | None = None  # Jinja, its text: a system message before it
    turns: tuple[str, ...] = ()  # Jinja, texts: further user's messages, each sent after the answer before it
    completions: bool = False  # /v1/completions instead of chat
    schema: str | None = None  # a JSON schema's text, which answers must follow
    samples: int = 1  # answers for each row
    sampling: dict[str, msgspec.Raw] = {}  # defaults for rows that do not say: max_tokens, temperature, seed ...
    answer_column: str = "generated_text"

    def differences(self, other: "Parameters") -> list[str]:
        """What is another in `other`, as 'NAME was X, is Y now', long values shortened."""
        found = []
        for name in self.__struct_fields__:
            before, now = getattr(self, name), getattr(other, name)
            if name == "sampling":
                found += _different_values(before, now)
            elif before != now:
                found.append(f"{name} was {_shown(before)}, is {_shown(now)} now")
        return found


def _different_values(before: dict[str, msgspec.Raw], now: dict[str, msgspec.Raw]) -> list[str]:
    """By value: JSON may be written in several ways."""
    found = []
    for name in sorted({*before, *now}):
        one, other = (json.loads(bytes(raw[name])) if name in raw else None for raw in (before, now))
        if one != other or (name in before) != (name in now):
            found.append(f"{name} was {_named(before, name)}, is {_named(now, name)} now")
    return found


def _named(values: dict[str, msgspec.Raw], name: str) -> str:
    return _shown(values[name]) if name in values else "not given"


def _shown(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."
