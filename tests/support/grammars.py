"""Grammars of one tokenizer, texts checked against them, and random texts by them."""

import random

from slurminfer.nodes.native.grammar.compiler import Grammars
from slurminfer.nodes.native.grammar.constraint import Constraint
from slurminfer.nodes.native.grammar.matcher import Grammar
from slurminfer.nodes.native.tokenizer import Tokenizer

_ENDING = 0.4  # the chance to end a text where that is allowed


class TokenGrammars:
    """Compiles constraints for a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int = 320) -> None:
        self.tokenizer, self.vocab_size = tokenizer, vocab_size
        self.grammars = Grammars(tokenizer.json, tokenizer.end_ids, tokenizer.special_ids)
        self.ends = frozenset(tokenizer.end_ids)

    def compile(self, constraint: Constraint) -> Grammar:
        return self.grammars.compile(constraint, self.vocab_size)

    def takes(self, constraint: Constraint, text: str) -> bool:
        """Whether `text` is one that the constraint allows as a whole."""
        matcher = self.compile(constraint).matcher(self.ends)
        tokens = self.tokenizer.encode(text, add_special_tokens=False)
        for token in tokens:
            if not allowed(matcher.fill(), token):
                return False
            matcher.accept(token)
        return matcher.is_accepting

    def random_text(self, constraint: Constraint, seed: int, most: int = 400) -> str | None:
        """A text of tokens drawn at random from what is allowed; None if it has not ended after `most` tokens.

        Tokens that close something come more often, or few texts would end.
        """
        draw = random.Random(seed)
        matcher = self.compile(constraint).matcher(self.ends)
        tokens: list[int] = []
        while len(tokens) < most:
            choices = tokens_of(matcher.fill())
            if self.ends & set(choices) and draw.random() < _ENDING:
                break
            usual = [token for token in choices if token not in self.ends]
            if not usual:
                break
            closing = [token for token in usual if self.tokenizer.token_bytes(token)[-1] in b'"}],']
            token = draw.choice(closing if closing and draw.random() < _ENDING else usual)
            matcher.accept(token)
            tokens.append(token)
            if matcher.is_complete:
                break
        else:
            return None
        return b"".join(map(self.tokenizer.token_bytes, tokens)).decode()


def allowed(mask: bytes, token: int) -> bool:
    return bool(mask[token >> 3] >> (token & 7) & 1)


def tokens_of(mask: bytes) -> list[int]:
    """The tokens that a mask allows."""
    return [8 * place + bit for place, byte in enumerate(mask) if byte for bit in range(8) if byte >> bit & 1]
