import json
import os
import re
import resource
import signal
import subprocess
import sys

import pytest

from slurminfer.core.errors import CorruptModelError, ModelError, ModelNotFoundError
from slurminfer.quant.models import fetch, resolve, resolve_head

# Resolves a model; says when it converts, and then stays there until a file "go" is there.
RESOLVER = """
import pathlib, sys, time
from slurminfer.quant.models import resolve

def progress(stage, done, total):
    print(stage, flush=True)
    while stage == "convert" and not pathlib.Path(sys.argv[2]).exists():
        time.sleep(0.01)

print(resolve(sys.argv[1], progress), flush=True)
"""


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (path / name).write_text("{}")
    return path


def until(stream, line):
    while stream.readline() != line:
        pass


def test_a_directory_is_itself(directory, monkeypatch):
    monkeypatch.chdir(directory.parent)
    assert resolve("model") == resolve(str(directory)) == directory


def test_a_directory_in_the_users_home(directory, monkeypatch):
    monkeypatch.setenv("HOME", str(directory.parent))
    assert resolve("~/model") == directory


def test_a_head_needs_no_tokenizer_of_its_own(directory):
    (directory / "tokenizer.json").unlink()
    assert resolve_head(str(directory)) == directory
    (directory / "model.safetensors").unlink()
    with pytest.raises(CorruptModelError, match=re.escape(f"{directory} lacks *.safetensors")):
        resolve_head(str(directory))


def test_a_directory_that_lacks_files_says_which(directory):
    (directory / "tokenizer.json").unlink()
    (directory / "model.safetensors").unlink()
    with pytest.raises(CorruptModelError, match=re.escape(f"{directory} lacks tokenizer.json, *.safetensors")):
        resolve(str(directory))


@pytest.mark.parametrize("path", ["", "/nowhere/model", "./model", "~nobody-here/model", "demo2", "a/b/c"])
def test_a_path_that_leads_nowhere_says_what_is_valid(home, path):
    expected = (
        f"model {path!r} is not there; expected a model directory, a .gguf file, a hub id such as org/name, or demo"
    )
    with pytest.raises(ModelNotFoundError, match=re.escape(expected)):
        resolve(path)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ModelNotFoundError, match="no known model 'demo2'; known: demo"):
        fetch("demo2")


def test_a_gguf_file_that_is_not_there_is_named(home, tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"cannot read .*none\.gguf: No such file"):
        resolve(str(tmp_path / "none.gguf"))


def test_a_gguf_file_is_converted_once_until_it_changes(home, write_gguf):
    path, _ = write_gguf()
    first = resolve(str(path))
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    assert first.parent == home and first.name.startswith("tiny-") and resolve(str(path)) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == stamp
    os.utime(path, ns=(0, 0))
    assert resolve(str(path)) != first


def test_a_corrupt_gguf_file_leaves_nothing(home, write_gguf):
    path, _ = write_gguf()
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CorruptModelError, match="damaged or incomplete"):
        resolve(str(path))
    assert not list(home.glob("tiny*")) and not list(home.glob(".tmp*"))


def test_killed_while_converting_it_starts_clean_next_time(home, write_gguf, start_python, tmp_path):
    path, _ = write_gguf()
    killed = start_python(RESOLVER, path, tmp_path / "go")
    until(killed.stdout, "convert\n")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert list(home.glob(".tmp*")) and not list(home.glob("tiny*"))
    assert (resolve(str(path)) / "config.json").exists() and not list(home.glob(".tmp*"))


def test_two_at_once_get_the_same_whole_model(home, write_gguf, start_python, tmp_path):
    path, _ = write_gguf()
    both = [start_python(RESOLVER, path, tmp_path / "go") for _ in range(2)]
    (tmp_path / "go").touch()
    ends = [process.communicate()[0].splitlines()[-1] for process in both]
    assert ends == [str(resolve(str(path)))] * 2
    assert len(list(home.glob("tiny*"))) == 1


def test_weights_that_do_not_fit_on_the_disk_leave_nothing(home, write_gguf, monkeypatch):
    path, _ = write_gguf()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))  # the system's own refusal, in the middle of a write
    try:
        with pytest.raises(ModelError, match=r"cannot write model tiny-.*: File too large"):
            resolve(str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(home.glob("tiny*")) and not list(home.glob(".tmp*"))


def run_resolve(path, env):
    code = "import sys; from slurminfer.quant.models import resolve; print(resolve(sys.argv[1]))"
    return subprocess.run([sys.executable, "-c", code, path], env=os.environ | env, capture_output=True, text=True)


def test_a_hub_model_that_cannot_be_had_says_what_was_tried(tmp_path):
    # Port 9 of this machine refuses: a hub that cannot be reached.
    done = run_resolve("org/none", {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"})
    last = done.stderr.strip().splitlines()[-1]
    assert "ModelNotFoundError: model 'org/none': no such directory, not in the Hugging Face cache" in last
    assert "copy the model's directory here" in last


def test_a_hub_model_in_the_cache_needs_no_network(tmp_path):
    repository = tmp_path / "hub" / "models--org--tiny"
    snapshot = repository / "snapshots" / "0123456789012345678901234567890123456789"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (snapshot / name).write_text("{}")
    done = run_resolve("org/tiny", {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"})
    assert done.stdout.strip() == str(snapshot), done.stderr


def test_resolving_imports_neither_torch_nor_transformers(directory):
    code = (
        "import sys; from slurminfer.quant.models import resolve; resolve(sys.argv[1]);"
        "print({'torch', 'transformers', 'gguf', 'tokenizers', 'huggingface_hub'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code, directory], capture_output=True, text=True).stdout == "set()\n"


def test_the_examples_prompts_are_chats_with_ids_of_their_own(request):
    for name, count in (("gsm8k-40", 40), ("prompts-100", 100)):
        lines = (request.config.rootpath / "examples" / "data" / f"{name}.jsonl").read_text().splitlines()
        prompts = [json.loads(line) for line in lines]
        assert len(prompts) == len({prompt["id"] for prompt in prompts}) == count
        assert all(message["role"] == "user" and message["content"] for p in prompts for message in p["messages"])
