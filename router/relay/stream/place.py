"""Where another worker takes up an answer: at the end of what was sent, or a little before, at the end of a token.

Text behind the place is generated again, and `Repeated` takes it out of the new stream.
"""

from collections.abc import Iterator, Sequence

from .envelope import CHAT, Envelope
from .transcript import Place, Said, Story

_FAR = 64  # characters: as far back a word may begin


def held_back(envelope: Envelope, story: Story) -> int:
    """Characters by which the text of a stream of vLLM is always behind its tokens, because of stop strings.

    Others hold back nothing, or only what may become a stop string.
    """
    if not story.is_of_vllm or envelope.include_stop_str_in_output is True:
        return 0
    return max(map(len, envelope.stops), default=1) - 1


def place_by_ids(envelope: Envelope, said: Said, held: int) -> Place | None:
    """How many of the token ids belong to the text; None where some of it would be generated again, but by chance."""
    text = "".join(said.text)
    place = next(_token_ends(said, text, held))
    return place if envelope.is_greedy or place.characters == len(text) else None


def place_by_text(envelope: Envelope, said: Said, held: int) -> Place:
    """How much of the text another worker is given.

    Never space at the end of a message: many chat templates take it away. And greedy answers are taken up at the end
    of a word: the beginning of one, or of spaces, would be other tokens than those that the model has said.
    """
    text = "".join(said.text)
    ends = list(_token_ends(said, text, held))
    if envelope.is_greedy:
        return _end_of_word(text, ends, said.base)
    characters = len(text.rstrip()) if envelope.kind == CHAT else len(text)
    tokens = next((place.tokens for place in ends if place.characters <= characters), said.base.tokens)
    return Place(characters, tokens) if characters else Place(0, 0)


def _end_of_word(text: str, ends: Sequence[Place], base: Place) -> Place:
    """The last one; where it is far away, as in languages without spaces, the last end that is not of a space."""
    solid = [place for place in ends if text[: place.characters][-1:].strip()]
    near = [place for place in (*solid, base) if len(text) - place.characters < _FAR]
    words = (place for place in near if place == base or text[place.characters : place.characters + 1].isspace())
    return next(words, next(iter(solid), base))


def _token_ends(said: Said, text: str, held: int) -> Iterator[Place]:
    """Where tokens end whose text was sent, the last first.

    The last of several tokens in one event may be half a character, but not where an ASCII character follows, and
    hardly ever after one.
    """
    for end in reversed(said.ends):
        characters = end.characters + held
        neighbour = text[characters : characters + 1] or text[-1:]
        if characters <= len(text) and (end.is_one or neighbour.isascii()):
            yield Place(characters, end.tokens)
    yield said.base


class Repeated:
    """The text that was sent already, and is generated again."""

    def __init__(self, text: str) -> None:
        self._text = text

    def take_from(self, text: str) -> str:
        """What of a new piece of text the client has not got. Where the two part, all that follows is new."""
        pairs = enumerate(zip(self._text, text, strict=False))
        same = next((at for at, (old, new) in pairs if old != new), min(len(self._text), len(text)))
        self._text = self._text[same:] if same == len(text) else ""
        return text[same:]
