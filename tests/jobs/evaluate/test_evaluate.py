"""A quantized checkpoint beside its original: every engine a real process, on a small random model."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from slurminfer.core.errors import CorruptModelError, EngineError, ModelNotFoundError, UsageError
from slurminfer.jobs.evaluate.evaluate import evaluate, write
from slurminfer.jobs.evaluate.evaluation import (
    EXACT_ORIGINAL,
    EXACT_QUANTIZED,
    QUANTIZED,
    Checkpoint,
    Evaluation,
    Quantization,
    read_evaluation,
    read_quantization,
)
from slurminfer.jobs.evaluate.table import percent, print_evaluation
from slurminfer.jobs.evaluate.variants import VARIANTS
from slurminfer.quant.checkpoint.awq import pack

from ...support.small_model import make_original

pytestmark = [pytest.mark.process, pytest.mark.slow]

GROUP = 32
TEXT = "The lamp would be replaced by an electric one, which needs no keeper. " * 20
SETTINGS = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}
RECORD = {
    "version": 1,
    "method": "awq",
    "bits": 4,
    "group_size": GROUP,
    "seconds": 1.0,
    "layers": [
        {"index": index, "seconds": 0.5, "linears": {"mlp.up_proj": {"error": 0.01, "rtn_error": rtn, "ratio": 0.3}}}
        for index, rtn in enumerate((0.02, 0.0))
    ],
}


def _round(weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Codes [out, in], zeros and scales [out, in / GROUP] of rounding to nearest."""
    groups = weight.view(len(weight), -1, GROUP)
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    scales = ((high - low) / 15).half().float()
    zeros = (-low / scales).round().clamp(0, 15)
    codes = (groups / scales.unsqueeze(-1) + zeros.unsqueeze(-1)).round().clamp(0, 15)
    return codes.view(weight.shape).to(torch.uint8), zeros.to(torch.uint8), scales


def _quantize(original: Path, directory: Path) -> None:
    directory.mkdir()
    tensors: dict[str, torch.Tensor] = {}
    for name, weight in load_file(original / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            tensors[name] = weight
            continue
        codes, zeros, scales = _round(weight.float())
        prefix = name.removesuffix("weight")
        tensors |= {f"{prefix}qweight": pack(codes.t().contiguous()), f"{prefix}qzeros": pack(zeros.t().contiguous())}
        tensors[f"{prefix}scales"] = scales.t().half().contiguous()
    save_file(tensors, directory / "model.safetensors")
    config = json.loads((original / "config.json").read_text()) | {"quantization_config": SETTINGS}
    (directory / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).write_bytes((original / name).read_bytes())


@pytest.fixture
def pair(tmp_path):
    """An original and its quantized checkpoint, without quantization.json as if it came from elsewhere."""
    original, quantized = tmp_path / "small", tmp_path / "small-awq"
    make_original(original)
    _quantize(original, quantized)
    return original, quantized


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return str(path)


@pytest.fixture(scope="module", autouse=True)
def _one_cpu() -> Iterator[None]:
    """For this process and its children: a small model gains nothing from more, and loses much where they are taken."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def _png_size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What the command finds out about a checkpoint that came without quantization.json, and where that lies."""
    home = tmp_path_factory.mktemp("evaluation")
    original, quantized = home / "small", home / "small-awq"
    make_original(original, bos=True)
    _quantize(original, quantized)
    (home / "text.txt").write_text(TEXT)
    command = [sys.executable, "-m", "slurminfer", "evaluate", str(quantized), "--against", str(original)]
    command += ["--text", str(home / "text.txt"), "--windows", "3", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return original, quantized, msgspec.json.decode(done.stdout, type=Evaluation)


def test_measures_every_variant(measured):
    _, _, evaluation = measured
    assert [figures.name for figures in evaluation.variants] == [variant.name for variant in VARIANTS]
    for figures in evaluation.variants:
        assert set(figures.decode_tokens_per_s) == {1, 16}
        assert min(*figures.decode_tokens_per_s.values(), figures.prefill_tokens_per_s, figures.tokens_per_gib) > 0
        assert 0 < figures.weights_bytes < figures.peak_bytes
    assert (evaluation.method, evaluation.bits, evaluation.group_size) == ("awq", 4, GROUP)
    assert evaluation.window == 96  # the model's context is shorter than the usual window


def test_the_reference_is_the_loss_of_transformers(measured):
    from transformers import AutoModelForCausalLM

    original, _, evaluation = measured
    tokens = Tokenizer.from_file(str(original / "tokenizer.json")).encode(TEXT, add_special_tokens=False).ids
    windows = torch.tensor([[256, *tokens[start : start + 95]] for start in (0, 95, 190)])
    model = AutoModelForCausalLM.from_pretrained(original, dtype=torch.float32)
    with torch.inference_mode():
        expected = math.exp(model(windows, labels=windows).loss)
    assert evaluation.variant(EXACT_ORIGINAL).perplexity == pytest.approx(expected, rel=1e-5)
    assert evaluation.variant(EXACT_ORIGINAL).perplexity_ratio == 1


def test_perplexities_follow_the_weights(measured):
    _, _, evaluation = measured
    exact, served = evaluation.variant(EXACT_QUANTIZED), evaluation.variant(QUANTIZED)
    assert exact.perplexity_ratio != pytest.approx(1, abs=1e-4)
    assert served.perplexity == pytest.approx(exact.perplexity, rel=0.1)
    assert exact.perplexity_ratio == pytest.approx(exact.perplexity / evaluation.variant(EXACT_ORIGINAL).perplexity)
    assert evaluation.perplexity_change == served.perplexity_ratio - 1


def test_what_follows_from_the_figures(measured):
    original, quantized, evaluation = measured
    sizes = [(directory / "model.safetensors").stat().st_size for directory in (original, quantized)]
    assert evaluation.size_ratio == sizes[0] / sizes[1] > 1
    speeds = [evaluation.variant(name).decode_tokens_per_s[16] for name in (QUANTIZED, "original")]
    assert evaluation.speedup(16) == speeds[0] / speeds[1]


def test_json_and_page_lie_beside_the_weights(measured):
    _, quantized, evaluation = measured
    assert evaluation.quantization is None
    assert read_evaluation(quantized) == evaluation
    assert _png_size(quantized / "evaluation.png") == (1600, 1000)
    assert not list(quantized.glob(".*"))


def test_the_quantizer_s_record_adds_a_panel(measured, tmp_path):
    _, quantized, evaluation = measured
    write(msgspec.structs.replace(evaluation, quantization=msgspec.convert(RECORD, Quantization)), tmp_path)
    assert _png_size(tmp_path / "evaluation.png") == (1600, 1000)
    assert (tmp_path / "evaluation.png").read_bytes() != (quantized / "evaluation.png").read_bytes()


def test_a_page_without_bits_and_groups(measured, tmp_path):
    _, _, evaluation = measured
    write(msgspec.structs.replace(evaluation, bits=None, group_size=None), tmp_path)
    assert _png_size(tmp_path / "evaluation.png") == (1600, 1000)


def test_the_record_is_read_as_far_as_it_is_needed(tmp_path):
    assert read_quantization(tmp_path) is None
    (tmp_path / "quantization.json").write_text(json.dumps(RECORD))
    record = read_quantization(tmp_path)
    assert isinstance(record, Quantization)
    assert [layer.linears["mlp.up_proj"].rtn_error for layer in record.layers] == [0.02, 0.0]


def test_the_table_has_a_line_for_each_variant(measured, capsys):
    _, quantized, evaluation = measured
    print_evaluation(evaluation, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(VARIANTS)]] == [variant.name for variant in VARIANTS]
    assert lines[-2].startswith(f"{evaluation.size_ratio:.2f} x smaller on disk, perplexity ")
    assert lines[-1] == f"{quantized}/evaluation.png"


@pytest.mark.parametrize("as_json", [False, True])
def test_without_matplotlib_there_is_json_and_a_word_on_how_to_draw(measured, tmp_path, monkeypatch, capsys, as_json):
    _, _, evaluation = measured
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    here = msgspec.structs.replace(evaluation, quantized=Checkpoint(path=str(tmp_path), bytes=1))
    (tmp_path / "evaluation.png").write_text("of an evaluation before this one")
    write(here, tmp_path)
    assert read_evaluation(tmp_path) == here
    assert not (tmp_path / "evaluation.png").exists()
    print_evaluation(here, as_json)
    said = capsys.readouterr()
    hint = "no evaluation.png: pip install 'slurminfer[plots]' draws the page\n"
    assert (said.err if as_json else said.out).endswith(hint)


@pytest.mark.parametrize(("change", "said"), [(0.0123, "+1.2%"), (-0.0123, "-1.2%"), (0.0004, "+0.04%")])
def test_small_changes_have_more_digits(change, said):
    assert percent(change) == said


def test_a_model_that_is_not_quantized_is_refused(pair, text):
    original, _ = pair
    with pytest.raises(UsageError, match=r"small is not quantized: its config\.json has no quantization_config"):
        evaluate(original, original, text=text)


def test_another_tokenizer_is_refused(pair, text):
    original, quantized = pair
    path = quantized / "tokenizer.json"
    vocabulary = json.loads(path.read_text())
    a, b = vocabulary["model"]["vocab"]["a"], vocabulary["model"]["vocab"]["b"]
    vocabulary["model"]["vocab"] |= {"a": b, "b": a}
    path.write_text(json.dumps(vocabulary))
    with pytest.raises(UsageError, match="another tokenizer"):
        evaluate(original, quantized, text=text)


def test_a_text_that_is_too_short_says_how_short(pair, text):
    with pytest.raises(UsageError, match=r"1400 tokens, but 15 windows of 96 need 1440"):
        evaluate(*pair, text=text, windows=15)


def test_a_text_that_is_not_there(pair):
    with pytest.raises(ModelNotFoundError, match=r"nowhere\.txt"):
        evaluate(*pair, text="nowhere.txt")


@pytest.mark.parametrize("layers", ['[{"index": 0}]', "[]", '[{"index": 0, "linears": {}}]'])
def test_a_damaged_record_is_found_before_anything_is_measured(pair, text, layers):
    record = f'{{"method": "awq", "bits": 4, "group_size": 32, "layers": {layers}}}'
    (pair[1] / "quantization.json").write_text(record)
    with pytest.raises(CorruptModelError, match=r"quantization\.json: .*linears"):
        evaluate(*pair, text=text)


def test_damaged_weights_are_named_with_the_variant(pair, text):
    original, quantized = pair
    path = quantized / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.scales"]
    save_file(tensors, path)
    expected = r"measuring quantized-float32: .*tensor model\.layers\.1\.mlp\.up_proj\.scales is missing"
    with pytest.raises(EngineError, match=expected):
        evaluate(original, quantized, text=text, windows=1)
    assert not (quantized / "evaluation.json").exists()
