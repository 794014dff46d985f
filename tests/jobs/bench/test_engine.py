"""`slurminfer bench engine`, on a small part of what it measures by default."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from slurminfer.cli import app
from slurminfer.core.errors import EngineError, UsageError
from slurminfer.core.machine.readings import peak_bytes
from slurminfer.jobs.bench.engine.command import report
from slurminfer.jobs.bench.engine.job import bench, numbers
from slurminfer.jobs.bench.engine.results import (
    DecodeResult,
    EngineBench,
    LoadResult,
    Measured,
    PrefillResult,
    quantile,
)
from slurminfer.nodes.native.timing import Pace

from ...support.small_model import make_original

pytestmark = [pytest.mark.process, pytest.mark.slow]

LAYERS, KV_HEADS, HEAD_DIM, FLOAT32 = 2, 2, 16, 4
KV_BYTES = LAYERS * 2 * KV_HEADS * HEAD_DIM * FLOAT32  # of a token
FEW = Pace(steps=4, fewest=2, seconds=1.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    directory: Path = tmp_path_factory.mktemp("models") / "small"
    make_original(directory, context=512)
    return directory


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("The lamp would be replaced by an electric one, which needs no keeper. " * 20)
    return str(path)


@pytest.fixture(scope="module")
def imported_bytes() -> int:
    """Memory of a process that imports the engine and runs nothing; this process takes three times as much."""
    code = (
        "import slurminfer.nodes.native.engine.core, slurminfer.nodes.native.model.loading\n"
        "from slurminfer.core.machine.readings import peak_bytes\n"
        "print(peak_bytes())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    bytearray(b"x") * (3 * int(said))
    return int(said)


@pytest.fixture(scope="module")
def found(model, text, imported_bytes) -> EngineBench:
    """Of three batches, the largest of which the KV cache has no room for."""
    options = {"threads": 1, "dtype": "float32", "kv_cache_gib": 8 * 64 * KV_BYTES / 2**30}
    return bench(
        model, options, batches=(1, 3, 64), contexts=(16,), prefills=(40,), requests=4, prompt=12, answer=3, rate=50.0,
        text=text, pace=FEW,
    )  # fmt: skip


def test_a_model_is_measured(found):
    seen = found.measured
    assert [(point.batch, point.context) for point in seen.decode] == [(1, 16), (3, 16)]  # no room for 64
    assert all(point.tokens_per_s > 0 for point in seen.decode)
    assert [one.tokens for one in seen.prefill] == [40]
    assert not seen.compiled and seen.dtype == "float32"
    assert len(seen.load.ttft_s) == 4 and len(seen.load.itl_s) == 4 * 2
    assert all(seconds > 0 for seconds in seen.load.ttft_s)
    assert seen.kv_bytes_per_token == KV_BYTES


def test_its_peak_is_that_of_the_process_that_computes(found, imported_bytes):
    """More than importing the engine takes, and less than this process has had."""
    assert imported_bytes < found.measured.peak_bytes < 2 * imported_bytes < peak_bytes()


def test_what_was_found_is_printed_and_written(found, tmp_path, capsys):
    report(found, False, tmp_path / "page.png", tmp_path / "found.json")
    said = capsys.readouterr().out
    assert "decode, batch 3, context 16" in said and "4 requests at 50.00 a second" in said
    assert (tmp_path / "page.png").read_bytes()[:4] == b"\x89PNG"
    assert msgspec.json.decode((tmp_path / "found.json").read_bytes(), type=EngineBench) == found
    report(found, True, None, None)
    assert json.loads(capsys.readouterr().out)["model"] == "small"


def test_no_room_for_any_batch(model, text):
    options = {"threads": 1, "dtype": "float32", "kv_cache_gib": 8 * 64 * KV_BYTES / 2**30}
    with pytest.raises(EngineError, match="no room for any of the batches"):
        bench(model, options, batches=(64,), contexts=(16,), prefills=(16,), requests=1, prompt=12, text=text, pace=FEW)


def test_a_page_without_matplotlib_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    asked = ["bench", "engine", "nowhere", "--page", str(tmp_path / "page.png")]
    error = CliRunner().invoke(app, asked).exception
    assert isinstance(error, UsageError)
    assert str(error) == "--page: drawing a page needs matplotlib: pip install 'slurminfer[plots]'"


def test_the_share_of_the_bandwidth_counts_weights_and_cache():
    point = DecodeResult(batch=2, context=10, step_s=0.5, step_tokens=3.0)
    seen = Measured(
        dtype="bfloat16", compiled=True, load_s=1.0, decode=(point,), prefill=(PrefillResult(tokens=4, seconds=2.0),),
        load=LoadResult(rate=1.0, tokens_per_s=1.0, ttft_s=(), itl_s=()), peak_bytes=1, weight_bytes=960,
        kv_bytes_per_token=2, bandwidth=4000.0,
    )  # fmt: skip
    whole = EngineBench(date="", model="m", cpu="c", cpus=1, options={}, measured=seen)
    assert whole.roofline(point) == pytest.approx((960 + 2 * 10 * 2) / 0.5 / 4000)
    assert point.tokens_per_s == 6 and seen.prefill[0].tokens_per_s == 2


def test_quantiles_are_values_that_were_seen():
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([3.0, 1.0, 2.0], 0.95) == 3.0
    assert quantile([], 0.5) == 0.0


@pytest.mark.parametrize("text", ["", "1,", "0", "a", "1.5", "-1"])
def test_numbers_that_are_none_are_refused(text):
    with pytest.raises(UsageError, match=r"--batches .*expected numbers of 1 or more"):
        numbers("--batches", text)


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"prefills": (100_000,)}, {}, "100001 tokens: the model has \\d+ positions"),
        ({"rate": 0.0}, {}, "--rate 0.0: expected more than 0"),
        ({}, {"kernels": "quick"}, "--kernels 'quick': expected one of auto, compiled, torch, exact"),
    ],
)
def test_what_cannot_be_measured_is_refused(model, changes, options, said):
    with pytest.raises(UsageError, match=said):
        bench(model, options, **changes)


def test_the_command_knows_its_options():
    assert "share of the memory bandwidth" in CliRunner().invoke(app, ["bench", "engine", "--help"]).output
