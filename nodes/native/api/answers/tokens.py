"""Single tokens as the JSON of answers has them."""

import codecs

from ...tokenizer import Tokenizer


class Offsets:
    """The places of tokens in a text, in characters. A part of a character has that character's place."""

    def __init__(self, start: int = 0) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._count = start

    def add(self, raw: bytes) -> int:
        """Append the bytes of a token; where it begins."""
        unfinished = bool(self._decoder.getstate()[0]) and bool(raw) and not begins_inside(raw)
        place = self._count + unfinished
        self._count += len(self._decoder.decode(raw))
        return place


def begins_inside(raw: bytes) -> bool:
    """Whether the first byte of `raw` is inside of a character."""
    return bool(raw) and raw[0] & 0xC0 == 0x80


def token_name(tokenizer: Tokenizer, id: int, *, as_id: bool = False) -> str:
    r"""The text of a token, or, as OpenAI writes a part of a character, `bytes:\xe2\x82`; or vLLM's `token_id:5`."""
    if as_id:
        return f"token_id:{id}"
    raw = tokenizer.token_bytes(id)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
