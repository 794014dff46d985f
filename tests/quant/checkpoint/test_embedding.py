"""What sentence-transformers' files say of embeddings is obeyed, or refused with the file, the key and the value."""

import json
from typing import Any

import pytest

from slurminfer.core.errors import CorruptModelError, UnsupportedModelError
from slurminfer.quant.checkpoint.config import parse_config
from slurminfer.quant.checkpoint.embedding import EmbeddingConfig, Pooling, read_embedding

TYPE = "sentence_transformers.models."
NEW_TYPE = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"


@pytest.fixture
def write(tmp_path):
    """Writes a model directory: files as JSON, by name; one with `modules` has Transformer and these."""

    def write(modules=None, /, **files):
        content: dict[str, Any] = {"config.json": {"hidden_size": 8, **files.pop("config", {})}}
        if modules is not None:
            paths = {"Pooling": "1_Pooling", "Normalize": "2_Normalize", "Transformer": ""}
            content["modules.json"] = [
                {"idx": i, "name": str(i), "path": paths.get(kind, kind), "type": TYPE + kind}
                for i, kind in enumerate(modules)
            ]
        content["1_Pooling/config.json"] = files.pop("pooling", {"pooling_mode": "mean"})
        content |= {f"{name}.json": value for name, value in files.items()}
        for name, value in content.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(value if isinstance(value, str) else json.dumps(value))
        return tmp_path

    return write


ALL = ["Transformer", "Pooling", "Normalize"]


def test_without_its_files_the_last_token_is_pooled_and_normalised(write):
    assert read_embedding(write()) == EmbeddingConfig(size=8, pooling=Pooling.LAST, normalize=True)


@pytest.mark.parametrize(
    ("pooling", "found"),
    [
        ({"pooling_mode": "lasttoken"}, Pooling.LAST),
        ({"pooling_mode": ["cls"]}, Pooling.CLS),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, Pooling.LAST),
        ({"pooling_mode_cls_token": True}, Pooling.CLS),
        ({"pooling_mode_mean_tokens": True}, Pooling.MEAN),
        ({"pooling_mode": "cls", "pooling_mode_mean_tokens": True}, Pooling.CLS),
        ({}, Pooling.MEAN),
    ],
)
def test_poolings_in_both_spellings(write, pooling, found):
    assert read_embedding(write(ALL, pooling=pooling)).pooling is found


def test_vectors_are_normalised_where_there_is_a_module_for_it(write):
    assert read_embedding(write(ALL)).normalize
    assert not read_embedding(write(ALL[:2])).normalize


def test_modules_of_newer_versions_have_other_packages(write):
    path = write(ALL)
    modules = json.loads((path / "modules.json").read_text())
    modules[1]["type"] = NEW_TYPE
    (path / "modules.json").write_text(json.dumps(modules))
    assert read_embedding(path).pooling is Pooling.MEAN


def test_only_the_default_prompt_applies(write):
    prompts = {"query": "Find: ", "document": "Store: "}
    of: dict[str, Any] = {"prompts": prompts, "default_prompt_name": None}
    assert read_embedding(write(ALL, config_sentence_transformers=of)).prompt == ""
    of = {"prompts": prompts, "default_prompt_name": "document"}
    assert read_embedding(write(ALL, config_sentence_transformers=of)).prompt == "Store: "


def test_the_longest_text_and_dimensions(write):
    config = read_embedding(write(ALL, sentence_bert_config={"max_seq_length": 77}))
    assert (config.max_tokens, config.allows(8), config.allows(4)) == (77, True, False)
    config = read_embedding(write(ALL, config={"is_matryoshka": True}))
    assert [size for size in range(-1, 11) if config.allows(size)] == [*range(1, 9)]
    config = read_embedding(write(ALL, config={"matryoshka_dimensions": [2, 4]}))
    assert [size for size in range(-1, 11) if config.allows(size)] == [2, 4, 8]


@pytest.mark.parametrize(
    ("modules", "files", "said"),
    [
        (["Transformer", "Pooling", "Dense", "Normalize"], {}, "modules Transformer, Pooling, Dense, Normalize"),
        (["Transformer", "Normalize"], {}, "modules Transformer, Normalize: the native engine computes"),
        (["WordEmbeddings", "Pooling"], {}, "modules WordEmbeddings, Pooling"),
        (ALL, {"pooling": {"pooling_mode": "max"}}, "pooling_mode max: the native engine computes one of lasttoken"),
        (ALL, {"pooling": {"pooling_mode": ["mean", "cls"]}}, "pooling_mode mean, cls"),
        (ALL, {"pooling": {"pooling_mode_weightedmean_tokens": True}}, "pooling_mode weightedmean"),
        (ALL, {"sentence_bert_config": {"do_lower_case": True}}, "do_lower_case = true: expected false"),
        (
            ALL,
            {
                "pooling": {"pooling_mode": "mean", "include_prompt": False},
                "config_sentence_transformers": {"prompts": {"q": "Q"}, "default_prompt_name": "q"},
            },
            "include_prompt = false",
        ),
    ],
)
def test_what_is_not_computed_is_refused(write, modules, files, said):
    with pytest.raises(UnsupportedModelError, match=said):
        read_embedding(write(modules, **files))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"modules": "{"}, "cannot read .*modules.json"),
        ({"modules": {"a": 1}}, "cannot read .*modules.json"),
        ({"modules": [{"path": ""}]}, "cannot read .*modules.json"),
        (
            {"modules": [{"type": "Transformer", "path": ""}, {"type": "Pooling", "path": "../elsewhere"}]},
            "a module's path is outside of",
        ),
        ({"config_sentence_transformers": {"default_prompt_name": "q"}}, "default_prompt_name = 'q'"),
        ({"config": {"is_matryoshka": "yes"}}, "is_matryoshka = 'yes': expected true or false"),
        ({"config": {"matryoshka_dimensions": [0]}}, r"matryoshka_dimensions = \[0\]: expected a list of positive"),
        ({"config": {"hidden_size": None}}, "hidden_size = None"),
    ],
)
def test_damaged_files_are_named(write, files, said):
    with pytest.raises(CorruptModelError, match=said):
        read_embedding(write(**files))


def test_a_pooling_without_its_file_is_named(write):
    path = write(ALL)
    (path / "1_Pooling/config.json").unlink()
    with pytest.raises(CorruptModelError, match=r"1_Pooling/config\.json"):
        read_embedding(path)


CONFIG = {
    "vocab_size": 9, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 16,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Qwen2", "Qwen3"])
def test_decoders_without_lm_head_are_those_with_one(kind):
    bare, whole = (
        parse_config({**CONFIG, "architectures": [f"{kind}{end}"]}, "config.json") for end in ("Model", "ForCausalLM")
    )
    assert (bare.has_head, whole.has_head) == (False, True)
    assert bare.architecture == whole.architecture
    assert (bare.qk_norm, bare.qkv_bias, bare.windows) == (whole.qk_norm, whole.qkv_bias, whole.windows)


@pytest.mark.parametrize("name", ["BertModel", "XLMRobertaModel", "ModernBertModel", "MPNetForMaskedLM"])
def test_encoders_are_refused_by_what_they_are(name):
    with pytest.raises(UnsupportedModelError, match=f"architecture {name} is an encoder.*engine vllm or sglang"):
        parse_config({**CONFIG, "architectures": [name]}, "config.json")


def test_attention_to_tokens_behind_is_refused():
    raw = {**CONFIG, "architectures": ["Qwen2ForCausalLM"], "is_causal": False}
    with pytest.raises(UnsupportedModelError, match="is_causal = false: expected true"):
        parse_config(raw, "config.json")
    parse_config({**raw, "is_causal": True}, "config.json")
