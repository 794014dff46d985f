"""Text to token ids and back, from a model directory's tokenizer.json, by the `tokenizers` library alone."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from ...core.errors import CorruptModelError, EngineError, ModelNotFoundError
from ...quant.checkpoint.files import read_json_object

_FEW_TOKENS = 0.02  # of a vocabulary


def read_model_json(directory: Path, name: str) -> dict[str, Any]:
    """A JSON object among the model's files; empty if there is no such file. Raises CorruptModelError."""
    path = directory / name
    return read_json_object(path) if path.exists() else {}


def check_same_tokens(model: Path, draft: Path) -> None:
    """Raise EngineError if two models do not number their tokens alike.

    A few that differ, such as added ones or other names for single bytes, cost guesses and no more.
    """
    known, other = (_load(path / "tokenizer.json").get_vocab(with_added_tokens=True) for path in (model, draft))
    differ = [token for token, number in known.items() if other.get(token) != number]
    if len(differ) > _FEW_TOKENS * len(known):
        token = min(differ, key=lambda token: known[token])
        raise EngineError(
            f"draft_model = {draft}: expected the tokenizer of {model}, but {len(differ)} of {len(known)} tokens have "
            f"other numbers or are not there: {token!r} is {known[token]} here and {other.get(token, 'none')} there"
        )


class Tokenizer:
    """The tokenizer of one model. Raises ModelNotFoundError or CorruptModelError."""

    def __init__(self, directory: Path) -> None:
        self._tokenizer = _load(directory / "tokenizer.json")
        self._bytes: dict[int, bytes] = {}  # of tokens that were asked for
        self.config = config = read_model_json(directory, "tokenizer_config.json")
        self.special_tokens = _special_tokens({**read_model_json(directory, "special_tokens_map.json"), **config})
        self.bos_id = self._id("bos_token")
        self.end_ids = _configured_end_ids(directory) | {id for id in [self._id("eos_token")] if id is not None}

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of `text`. Special tokens are added as the model wants them, but BOS never twice."""
        # Of the library's methods, `encode` alone would hold the GIL meanwhile.
        [encoding] = self._tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        ids: list[int] = encoding.ids
        doubled = self.bos_id is not None and ids[:2] == [self.bos_id, self.bos_id]
        return ids[1:] if doubled and add_special_tokens else ids

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """Text of `ids`, without special tokens unless these are wanted; U+FFFD for bytes that are not UTF-8."""
        return self._tokenizer.decode(ids, skip_special_tokens=not special)

    def token_string(self, id: int) -> str:
        """How the vocabulary writes a token, in whatever alphabet it has; empty for an unused number."""
        return self._tokenizer.id_to_token(id) or ""

    def token_bytes(self, id: int) -> bytes:
        """The bytes that one token stands for: maybe a part of a character. Special tokens stand for their names."""
        found = self._bytes.get(id)
        if found is None:  # answers may have a million alternatives
            found = self._find_bytes(id)
            if found:
                self._bytes[id] = found
        return found

    def _find_bytes(self, id: int) -> bytes:
        token = self._tokenizer.id_to_token(id)
        if token is None:
            return b""  # a row of the embedding that pads the vocabulary
        if id in self._added:
            return token.encode()
        if self._byte_level:
            return b"".join(bytes([_BYTE_OF[char]]) if char in _BYTE_OF else char.encode() for char in token)
        if len(token) == 6 and token.startswith("<0x"):
            return bytes([int(token[3:5], 16)])
        return token.replace("▁", " ").encode()

    def is_visible(self, id: int) -> bool:
        """Whether `decode` writes anything for this token: special tokens and unused numbers are left out."""
        return id not in self._special and self._tokenizer.id_to_token(id) is not None

    @property
    def json(self) -> str:
        """The text of tokenizer.json, for other libraries."""
        return self._tokenizer.to_str()

    @cached_property
    def special_ids(self) -> dict[str, int]:
        """The ids of special tokens by their names."""
        return {name: id for id, name in self._special.items()}

    @cached_property
    def special_names(self) -> frozenset[str]:
        """The special tokens as they are written, which `decode` leaves out."""
        return frozenset(self._special.values())

    @cached_property
    def added_names(self) -> frozenset[str]:
        """The added tokens as they are written, special or not."""
        return frozenset(token.content for token in self._tokenizer.get_added_tokens_decoder().values())

    @cached_property
    def longest_token(self) -> int:
        """Bytes of the longest token, or a few more."""
        tokens = self._tokenizer.get_vocab(with_added_tokens=True)
        return max((len(token.encode()) for token in tokens), default=1)

    @cached_property
    def _special(self) -> dict[int, str]:
        added = self._tokenizer.get_added_tokens_decoder()
        return {id: token.content for id, token in added.items() if token.special}

    @cached_property
    def _added(self) -> frozenset[int]:
        return frozenset(self._tokenizer.get_added_tokens_decoder())

    @cached_property
    def _byte_level(self) -> bool:
        return "ByteLevel" in repr(self._tokenizer.decoder)

    def _id(self, name: str) -> int | None:
        token = self.special_tokens.get(name)
        return None if token is None else self._tokenizer.token_to_id(token)


def _load(path: Path) -> tokenizers.Tokenizer:
    if not path.is_file():
        raise ModelNotFoundError(f"{path} does not exist: expected a model directory with a tokenizer.json")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise CorruptModelError(f"cannot read {path}: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """bos_token, eos_token and so on; each is a string, or an object with the string as its content."""
    found = {}
    for name, value in config.items():
        content = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(content, str):
            found[name] = content
    return found


def _configured_end_ids(directory: Path) -> set[int]:
    """End tokens that generation_config.json and config.json name. Chat models differ in which file is complete.

    Raises CorruptModelError for a value that is no token id.
    """
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        value = read_model_json(directory, name).get("eos_token_id")
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(id, int) and not isinstance(id, bool) for id in ids):
            expected = "expected an integer or a list of them"
            raise CorruptModelError(f"{directory / name}: eos_token_id = {value!r}: {expected}")
        found.update(ids)
    return found


def _byte_alphabet() -> dict[str, int]:
    """The characters by which byte-level BPE writes bytes: printable ones stand for themselves (GPT-2's encoder.py)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + rank): byte for rank, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()
