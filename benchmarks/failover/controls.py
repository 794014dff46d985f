"""What an engine itself says when it is given exactly the tokens before a cut: whether it repeats itself at all."""

import json
from dataclasses import dataclass
from typing import Any, Protocol

from .streams import Asker, Fields, path_of

_LIMIT = "max_tokens"


@dataclass(frozen=True, slots=True)
class Ids:
    """The token ids of an undisturbed answer, and its text."""

    prompt: list[int]
    answer: list[int]
    text: str


class Control(Protocol):
    """An engine asked by token ids."""

    async def whole(self, fields: Fields) -> Ids:
        """The answer to a request."""

    async def rest(self, fields: Fields, ids: Ids, cut: int) -> list[int]:
        """The token ids that follow the first `cut` of an answer."""


class VLLM:
    """By `return_token_ids`, and prompts of token ids for completions."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def whole(self, fields: Fields) -> Ids:
        said = await self._ask(path_of(fields), fields)
        choice = said["choices"][0]
        prompt = said.get("prompt_token_ids") or choice["prompt_token_ids"]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        return Ids(prompt, choice["token_ids"], text)

    async def rest(self, fields: Fields, ids: Ids, cut: int) -> list[int]:
        kept = {name: value for name, value in fields.items() if name != "messages"}
        asked = kept | {"prompt": ids.prompt + ids.answer[:cut], _LIMIT: fields[_LIMIT] - cut}
        found: list[int] = (await self._ask("/v1/completions", asked))["choices"][0]["token_ids"]
        return found

    async def _ask(self, path: str, fields: Fields) -> Any:
        plain = {name: value for name, value in fields.items() if not name.startswith("stream")}
        return json.loads(await self._asker.post(path, plain | {"return_token_ids": True}))


class SGLang:
    """By /generate, which takes and gives token ids."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def whole(self, fields: Fields) -> Ids:
        asked: Fields = {
            name: fields[name] for name in ("model", "messages", "prompt", "continue_final_message") if name in fields
        }
        prompt = json.loads(await self._asker.post("/v1/tokenize", asked))["tokens"]
        said = await self._generate(fields, prompt, fields[_LIMIT])
        return Ids(prompt, said["output_ids"], said["text"])

    async def rest(self, fields: Fields, ids: Ids, cut: int) -> list[int]:
        said = await self._generate(fields, ids.prompt + ids.answer[:cut], fields[_LIMIT] - cut)
        found: list[int] = said["output_ids"]
        return found

    async def _generate(self, fields: Fields, prompt: list[int], limit: int) -> Any:
        sampling = {"temperature": 0, "max_new_tokens": limit, "ignore_eos": fields.get("ignore_eos", False)}
        sampling |= {"stop": fields["stop"]} if "stop" in fields else {}
        return json.loads(await self._asker.post("/generate", {"input_ids": prompt, "sampling_params": sampling}))


CONTROLS: dict[str, type[VLLM] | type[SGLang]] = {"vllm": VLLM, "sglang": SGLang}


async def repeats(control: Control, fields: Fields, ids: Ids, cut: int) -> bool:
    """Whether the engine gives the rest of its own answer again when it is given the first `cut` tokens."""
    cut = min(cut, len(ids.answer) - 1)
    return cut <= 0 or await control.rest(fields, ids, cut) == ids.answer[cut:]
