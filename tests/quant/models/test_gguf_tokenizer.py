import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from slurminfer.core.errors import CorruptModelError, UnsupportedModelError
from slurminfer.quant.gguf.reader import GgufFile
from slurminfer.quant.gguf.tokenizer import PRE_TOKENIZERS, build_tokenizer, tokenizer_config


@pytest.fixture
def tokenizer(write_gguf, vocabularies):
    """The tokenizer of that kind, with changes to its metadata, after a round through JSON."""

    def run(kind="gpt2", **changes):
        path, _ = write_gguf(vocabulary=vocabularies[kind] | changes)
        return Tokenizer.from_str(build_tokenizer(GgufFile(path)).to_str())

    return run


def test_merges_apply_in_order_and_only_inside_words(tokenizer):
    assert tokenizer().encode("hello hello").tokens == ["hello", "Ġhello"]


def test_special_tokens_stay_whole_and_vanish_on_request(tokenizer):
    tok = tokenizer()
    encoded = tok.encode("<|im_start|>hello<|im_end|>")
    assert encoded.tokens == ["<|im_start|>", "hello", "<|im_end|>"] and encoded.ids[0] == 1
    assert tok.decode(encoded.ids) == "hello"


def test_user_defined_tokens_stay_whole_and_visible(tokenizer, vocabularies):
    tokens, types = vocabularies["gpt2"]["tokens"], vocabularies["gpt2"]["token_type"]
    tok = tokenizer(tokens=[*tokens, "<think>"], token_type=[*types, 4])
    encoded = tok.encode("hello<think>")
    assert encoded.ids == [tokens.index("hello"), len(tokens)] and tok.decode(encoded.ids) == "hello<think>"


@pytest.mark.parametrize(
    ("pre", "tokens"),
    [("gpt-2", ["12", "3", "4"]), ("smollm", ["1", "2", "3", "4"]), ("qwen2", ["1", "2", "3", "4"]),
     ("llama-bpe", ["12", "3", "4"])],
)  # fmt: skip
def test_digits_are_cut_as_the_pre_tokenizer_says(tokenizer, pre, tokens):
    assert tokenizer(pre=pre).encode("1234", add_special_tokens=False).tokens == tokens


def test_llama3_takes_whole_words_before_merging(tokenizer, vocabularies):
    merges = vocabularies["gpt2"]["merges"][:-2]  # hello can no longer be merged after a space
    llama3 = tokenizer(pre="llama-bpe", merges=merges)
    assert llama3.encode(" hello", add_special_tokens=False).tokens == ["Ġhello"]
    assert tokenizer(pre="qwen2", merges=merges).encode(" hello").tokens == ["Ġ", "hello"]


def test_qwen2_normalizes_to_composed_characters(tokenizer):
    tok = tokenizer(pre="qwen2")
    assert tok.encode("e\u0301").ids == tok.encode("\u00e9").ids


@pytest.mark.parametrize("pre", sorted(PRE_TOKENIZERS))
def test_byte_level_text_comes_back(tokenizer, pre):
    tok = tokenizer(pre=pre)

    @given(text=st.text())
    def comes_back(text):
        expected = tok.normalizer.normalize_str(text) if tok.normalizer else text
        assert tok.decode(tok.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == expected

    comes_back()


def test_sentencepiece_text_comes_back(tokenizer):
    tok = tokenizer("llama")

    @given(text=st.text().filter(lambda text: "▁" not in text))  # SentencePiece itself reads that as a space
    def comes_back(text):
        assert tok.decode(tok.encode(text).ids) == text

    comes_back()


def test_sentencepiece_merges_the_best_score_first(tokenizer):
    assert tokenizer("llama").encode("ab").tokens == ["<s>", "▁a", "b"]  # "▁a" scores -1, "ab" -2


def test_sentencepiece_spells_unknown_characters_in_bytes(tokenizer):
    assert tokenizer("llama").encode("aé").tokens == ["<s>", "▁a", "<0xC3>", "<0xA9>"]


def test_sentencepiece_text_after_a_special_token_begins_with_a_space_too(tokenizer):
    assert tokenizer("llama").encode("a</s>a").tokens == ["<s>", "▁a", "</s>", "▁a"]


def test_sentencepiece_without_the_space_prefix(tokenizer):
    tok = tokenizer("llama", add_space_prefix=False)
    assert tok.encode("a a").tokens == ["<s>", "a", "▁a"]
    assert tok.decode(tok.encode(" a").ids) == " a"


@pytest.mark.parametrize(
    ("kind", "changes", "ids"),
    [
        ("llama", {}, [1, 261]),
        ("llama", {"add_bos_token": False}, [261]),
        ("llama", {"add_eos_token": True}, [1, 261, 2]),
        ("gpt2", {}, [67]),
        ("gpt2", {"add_bos_token": True}, [1, 67]),
        ("gpt2", {"pre": "llama-bpe"}, [1, 67]),
    ],
)
def test_begin_and_end_of_sequence_are_added_as_the_metadata_say(tokenizer, vocabularies, kind, changes, ids):
    first = {"llama": "▁a", "gpt2": "a"}[kind]
    index = vocabularies[kind]["tokens"].index(first)
    expected = [index if token > 2 else token for token in ids]
    assert tokenizer(kind, **changes).encode("a").ids == expected
    assert tokenizer(kind, **changes).encode("a", add_special_tokens=False).ids == [index]


def test_config_names_special_tokens_and_the_chat_template(write_gguf):
    path, _ = write_gguf(metadata={"tokenizer.chat_template": "{{ messages }}"})
    assert tokenizer_config(GgufFile(path)) == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 128,
        "bos_token": "<|im_start|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "chat_template": "{{ messages }}",
    }


def test_an_unknown_pre_tokenizer_lists_the_supported(tokenizer):
    with pytest.raises(UnsupportedModelError, match=r"'tekken-9'; supported: .*llama-bpe.*qwen2.*smollm"):
        tokenizer(pre="tekken-9")


def test_an_unknown_kind_of_tokenizer_lists_the_supported(tokenizer):
    with pytest.raises(UnsupportedModelError, match="tokenizer 'bert'; supported: gpt2, llama"):
        tokenizer(model="bert")


@pytest.mark.parametrize(
    ("kind", "changes", "complaint"),
    [
        ("gpt2", {"merges": ["h e", "x y z"]}, "damaged vocabulary"),
        ("gpt2", {"merges": ["he"]}, "damaged vocabulary"),
        ("gpt2", {"token_type": [1, 1]}, "265 tokens, but 2 token types"),
        ("llama", {"scores": [0.0]}, "tokens, but 1 scores"),
        ("llama", {"bos_token_id": 70000}, "bos_token_id = 70000, but there are"),
    ],
)
def test_a_damaged_vocabulary_is_corrupt(tokenizer, kind, changes, complaint):
    with pytest.raises(CorruptModelError, match=complaint):
        tokenizer(kind, **changes)
