"""GGUF vocabulary -> a tokenizer of the `tokenizers` library, with the same ids for the same text.

Two kinds: "gpt2" is byte-level BPE with stored merges, "llama" is SentencePiece BPE, whose merges follow from scores.
How text is cut before byte-level BPE is not in the file, only its name, `tokenizer.ggml.pre`: PRE_TOKENIZERS has what
the tokenizer.json of those models say.
"""

from collections.abc import Callable
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from ...core.errors import CorruptModelError, UnsupportedModelError
from .reader import GgufFile

# tokenizer.ggml.token_type
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6

_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2_SPLIT = _LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")


def _gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _smollm() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _llama3() -> pre_tokenizers.PreTokenizer:
    return _split(_LLAMA3_SPLIT)


def _qwen2() -> pre_tokenizers.PreTokenizer:
    return _split(_QWEN2_SPLIT)


PRE_TOKENIZERS: dict[str, Callable[[], pre_tokenizers.PreTokenizer]] = {
    "default": _gpt2,
    "gpt-2": _gpt2,
    "smollm": _smollm,
    "llama-bpe": _llama3,
    "llama3": _llama3,
    "llama-v3": _llama3,
    "qwen2": _qwen2,
    "deepseek-r1-qwen": _qwen2,
}


def build_tokenizer(file: GgufFile) -> Tokenizer:
    """The tokenizer that the metadata describe. Raises UnsupportedModelError and CorruptModelError."""
    kinds = {"gpt2": _byte_level, "llama": _sentencepiece}
    kind = file.get("tokenizer.ggml.model", str)
    if kind not in kinds:
        raise UnsupportedModelError(f"{file.path} has a tokenizer {kind!r}; supported: {', '.join(kinds)}")
    tokens = file.get("tokenizer.ggml.tokens", list[str])
    types = file.find("tokenizer.ggml.token_type", list[int], [_NORMAL] * len(tokens))
    if len(types) != len(tokens):
        raise CorruptModelError(f"{file.path} has {len(tokens)} tokens, but {len(types)} token types")
    tokenizer = kinds[kind](file, tokens, types)
    # In the order of ids, so that two special tokens of which one begins the other keep their precedence.
    tokenizer.add_tokens([_added(token, kind) for token, kind in zip(tokens, types, strict=True) if _is_added(kind)])
    _add_template(tokenizer, file, tokens)
    return tokenizer


def tokenizer_config(file: GgufFile) -> dict[str, Any]:
    """tokenizer_config.json: special tokens and the chat template."""
    tokens = file.get("tokenizer.ggml.tokens", list[str])
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": file.get(f"{file.architecture}.context_length", int),
    }
    for ours, theirs in {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}.items():
        index = _special_id(file, theirs, len(tokens))
        if index is not None:
            config[f"{ours}_token"] = tokens[index]
    if file.has("tokenizer.chat_template"):
        config["chat_template"] = file.get("tokenizer.chat_template", str)
    return config


def _byte_level(file: GgufFile, tokens: list[str], types: list[int]) -> Tokenizer:
    pre = file.find("tokenizer.ggml.pre", str, "default")
    if pre not in PRE_TOKENIZERS:
        raise UnsupportedModelError(
            f"{file.path} has a pre-tokenizer {pre!r}; supported: {', '.join(sorted(PRE_TOKENIZERS))}"
        )
    merges = [tuple(merge.split(" ", 1)) for merge in file.get("tokenizer.ggml.merges", list[str])]
    vocab = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(_bpe(file, vocab, merges, ignore_merges=_is_llama3(file)))
    if PRE_TOKENIZERS[pre] is _qwen2:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[pre]()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(file: GgufFile, tokens: list[str], types: list[int]) -> Tokenizer:
    vocab = {token: index for index, token in enumerate(tokens)}
    scores = file.get("tokenizer.ggml.scores", list[float])
    if len(scores) != len(tokens):
        raise CorruptModelError(f"{file.path} has {len(tokens)} tokens, but {len(scores)} scores")
    merges = _merges({t: s for t, s, kind in zip(tokens, scores, types, strict=True) if kind == _NORMAL})
    unknown = _special_id(file, "unknown", len(tokens))
    options = {"unk_token": None if unknown is None else tokens[unknown], "byte_fallback": _BYTE in types}
    tokenizer = Tokenizer(_bpe(file, vocab, merges, fuse_unk=True, **options))
    prefix = file.find("tokenizer.ggml.add_space_prefix", bool, True)
    # As llama.cpp does, every piece of text between special tokens gets the space in front, not the first one alone.
    tokenizer.normalizer = normalizers.Sequence(
        [*([normalizers.Prepend("▁")] if prefix else []), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        + ([decoders.Strip(" ", left=1)] if prefix else [])
    )
    return tokenizer


def _merges(scores: dict[str, float]) -> list[tuple[str, ...]]:
    """SentencePiece joins the neighbours whose union scores best: all splits of all tokens, best score first."""
    ranked = sorted((token for token in scores if len(token) > 1), key=lambda token: -scores[token])
    splits = ((token[:cut], token[cut:]) for token in ranked for cut in range(1, len(token)))
    return [(left, right) for left, right in splits if left in scores and right in scores]


def _bpe(file: GgufFile, vocab: dict[str, int], merges: list[Any], **options: Any) -> BPE:
    try:
        return BPE(vocab, merges, **options)
    except Exception as error:  # tokenizers raises bare Exceptions
        raise CorruptModelError(f"{file.path} has a damaged vocabulary: {error}") from error


def _is_added(kind: int) -> bool:
    return kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)


def _added(token: str, kind: int) -> AddedToken:
    return AddedToken(token, special=kind != _USER_DEFINED, normalized=False)


def _add_template(tokenizer: Tokenizer, file: GgufFile, tokens: list[str]) -> None:
    """Put the begin-of-sequence and end-of-sequence tokens round every encoded text, where the model wants them."""
    is_spm = file.get("tokenizer.ggml.model", str) == "llama"
    bos = eos = None
    if file.find("tokenizer.ggml.add_bos_token", bool, is_spm or _is_llama3(file)):
        bos = _special_id(file, "bos", len(tokens))
    if file.find("tokenizer.ggml.add_eos_token", bool, False):
        eos = _special_id(file, "eos", len(tokens))
    ids = {tokens[index]: index for index in (bos, eos) if index is not None}
    if not ids:
        return
    single = ([tokens[bos]] if bos is not None else []) + ["$A"] + ([tokens[eos]] if eos is not None else [])
    pair = single + [part.replace("$A", "$B") + ":1" for part in single]
    tokenizer.post_processor = processors.TemplateProcessing(single, pair, list(ids.items()))


def _is_llama3(file: GgufFile) -> bool:
    return PRE_TOKENIZERS.get(file.find("tokenizer.ggml.pre", str, "")) is _llama3


def _special_id(file: GgufFile, name: str, count: int) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    if not file.has(key):
        return None
    index = file.get(key, int)
    if not 0 <= index < count:
        raise CorruptModelError(f"{file.path}: {key} = {index}, but there are {count} tokens")
    return index
