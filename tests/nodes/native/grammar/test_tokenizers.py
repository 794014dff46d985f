"""Tokenizers of other kinds: the library takes the same bytes for each token as the detokenizer does."""

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from slurminfer.nodes.native.api.answers.detokenizer import Detokenizer
from slurminfer.nodes.native.grammar.constraint import Choices, JsonSchema, Regex
from slurminfer.nodes.native.tokenizer import Tokenizer

from ....support.grammars import TokenGrammars, tokens_of

WORDS = ["▁", "▁a", "▁yes", "yes", "no", '{"', '":', '"}', '▁"', "▁1", "ä", "▁{", "▁}", "\n"]


def _llama2(directory: Path, *, prefix: bool) -> Tokenizer:
    """As Llama 2 and TinyLlama write it: sentencepiece's words, and bytes for what they do not have."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *map(chr, range(33, 127)), *WORDS]
    vocab = {name: id for id, name in enumerate(dict.fromkeys(names))}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    before = [normalizers.Prepend("▁")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    special = [tokenizers.AddedToken(name, special=True) for name in ("<unk>", "<s>", "</s>")]
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    return Tokenizer(directory)


def _metaspace(directory: Path) -> Tokenizer:
    """The newer way to write the same."""
    tokenizer = _llama2(directory, prefix=False)
    path = directory / "tokenizer.json"
    inner = tokenizers.Tokenizer.from_file(str(path))
    inner.normalizer = normalizers.Sequence([])
    inner.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    inner.save(str(path))
    assert tokenizer.end_ids
    return Tokenizer(directory)


@pytest.fixture(params=["llama2", "without a prefix", "metaspace", "byte level"])
def other(request, tmp_path, tokenizer) -> TokenGrammars:
    kinds = {"llama2": lambda: _llama2(tmp_path, prefix=True), "metaspace": lambda: _metaspace(tmp_path),
             "without a prefix": lambda: _llama2(tmp_path, prefix=False), "byte level": lambda: tokenizer}  # fmt: skip
    found = kinds[request.param]()
    return TokenGrammars(found, 400)


def test_the_library_reads_the_same_bytes_for_every_token(other):
    library = other.grammars._tokens(other.vocab_size)
    special = set(other.tokenizer.special_ids.values())
    for token in range(other.tokenizer._tokenizer.get_vocab_size()):
        expected = other.tokenizer.token_bytes(token)
        if token not in special and expected != b"\xff":  # which no text has: the library marks special tokens with it
            assert library.decode_bytes([token]) == expected, token


@pytest.mark.parametrize(
    "constraint",
    [Choices(["yes no", "äöü🎉", " yes"]), JsonSchema({"enum": ["ä ö 🎉", {"a b": ""}]}), Regex("(yes ?){2,3}é")],
)
def test_what_is_told_is_what_the_grammar_allows(other, constraint):
    """The answer's text, as the detokenizer tells it behind a prompt with text in it."""
    prompt = other.tokenizer.encode("no", add_special_tokens=False)
    for seed in range(20):
        matcher, told = other.compile(constraint).matcher(other.ends), Detokenizer(other.tokenizer, prompt)
        text, step = "", 0
        while not matcher.is_complete:
            tokens = [token for token in tokens_of(matcher.fill()) if token not in other.ends]
            if not tokens:
                break
            token = tokens[(seed * 31 + step * 17) % len(tokens)]
            matcher.accept(token)
            text, step = text + told.push(token), step + 1
        assert matcher.is_accepting
        assert other.takes(constraint, text) or _written(other, constraint, text)


def _without_end(directory: Path) -> Tokenizer:
    """Of a model that has no token that ends an answer, and a letter as token 0."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = tokenizers.Tokenizer(models.BPE(vocab={name: id for id, name in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.save(str(directory / "tokenizer.json"))
    return Tokenizer(directory)


@pytest.mark.parametrize("vocab_size", [256, 250, 300])
def test_the_first_token_of_a_model_without_an_end_token_is_text(tmp_path, vocab_size):
    tokenizer = _without_end(tmp_path)
    first = tokenizer.token_bytes(0).decode()
    compile = TokenGrammars(tokenizer, vocab_size).compile
    [other, again] = tokenizer.encode(f"a{first}", add_special_tokens=False)
    assert (first, again, tokenizer.end_ids) == ("!", 0, set())
    ends = compile(Regex("a+")).matcher()
    ends.accept(other)
    assert ends.is_accepting and tokens_of(ends.fill()) == [other], "what ends it is no token of the model"
    repeats = compile(Regex("a!{2,}")).matcher()
    assert repeats.valid([other, 0, 0, 0]) == 4
    for token in (other, 0, 0, 0):
        repeats.accept(token)
    assert not repeats.is_complete


def _written(other: TokenGrammars, constraint, text: str) -> bool:
    """As `takes`, byte by byte: tokenizers that put a space before a text cannot write all of them as a whole."""
    matcher = other.compile(constraint).matcher(other.ends)
    for byte in text.encode():
        name = f"<0x{byte:02X}>"
        token = other.tokenizer._tokenizer.token_to_id(name)
        if token is None or not matcher.valid([token]):
            return False
        matcher.accept(token)
    return matcher.is_accepting
