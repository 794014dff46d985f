"""Reading a spec as the commands do: whatever is wrong in it is refused before anything is submitted."""

from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from slurminfer.cli import app
from slurminfer.core.errors import SpecError, UnsupportedModelError
from slurminfer.core.net.certificates import new_key, self_signed
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.serve.spec import read_spec, with_models_found

from ...support.model_directories import write_directory

SPEC = "name = 'x'\n[model]\npath = 'demo'\n[[pool]]\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a spec file whose pool has these lines too."""
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path))
    path = tmp_path / "spec.toml"

    def write(lines: str):
        path.write_text(SPEC + lines)
        return path

    return write


def test_a_spec_may_get_another_name(write):
    assert read_spec(write("workers = 2")).name == "x"
    assert read_spec(write("workers = 2"), "y").name == "y"
    with pytest.raises(SpecError, match=r"name = '\.\./y'"):
        read_spec(write("workers = 2"), "../y")


WRONG = [
    ("wrokers = 3", "pool[0].wrokers = 3: unknown key"),
    ("engine = 'ollama'", "pool[0].engine = 'ollama': expected one of: native, sglang, vllm"),
    ("nodes = 2", "pool[0].nodes = 2: so many nodes cannot share"),
    ("[router]\npolicy = 'magic'", "router.policy = 'magic': expected one of: cache_aware, least_load"),
    ("[speculative]\ndraft_tokens = 99", "speculative.draft_tokens = 99: expected at most 15"),
]


@pytest.mark.parametrize(("lines", "said"), WRONG)
@pytest.mark.parametrize("name", [None, "y"])
def test_what_is_wrong_is_refused(write, lines, said, name):
    with pytest.raises(SpecError) as caught:
        read_spec(write(lines), name)
    assert said in str(caught.value)


@pytest.mark.parametrize(("lines", "said"), WRONG)
def test_every_command_that_takes_a_spec_refuses_it(write, tmp_path, lines, said):
    path = str(write(lines))
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "a"}\n')
    for words in (
        ["serve", path, "--local", "--dry-run"],
        ["batch", str(source), "out.jsonl", "--spec", path, "--local"],
    ):
        done = CliRunner().invoke(app, words)
        assert isinstance(done.exception, SpecError)
        assert said in str(done.exception)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "architecture GPT2LMHeadModel is not one of LlamaForCausalLM"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "rope type 'longrope' is not one of"),
        ({"quantization_config": {"quant_method": "exl2"}}, "exl2"),
    ],
)
@pytest.mark.parametrize("place", ["model", "pool", "draft"])
def test_a_model_that_the_native_engine_does_not_compute_starts_nothing(tmp_path, monkeypatch, place, changes, said):
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "home"))
    good, bad = write_directory(tmp_path / "good"), write_directory(tmp_path / "bad", **changes)
    paths = {"model": good, "pool": good, "draft": good} | {place: bad}
    (tmp_path / "spec.toml").write_text(
        f'name = "x"\n[model]\npath = "{paths["model"]}"\n[[pool]]\n[[pool]]\nname = "b"\nmodel = {{ path = '
        f'"{paths["pool"]}" }}\n[speculative]\nmethod = "draft"\ndraft_model = "{paths["draft"]}"\n'
    )
    done = CliRunner().invoke(app, ["serve", str(tmp_path / "spec.toml"), "--local"])
    assert isinstance(done.exception, UnsupportedModelError) and said in str(done.exception)
    assert not (tmp_path / "home" / "runs").exists()


def test_other_engines_say_for_themselves_what_they_compute(tmp_path):
    model = write_directory(tmp_path / "m", architectures=["GPT2LMHeadModel"])
    spec = parse_spec(f'name = "x"\n[model]\npath = "{model}"\n[[pool]]\nengine = "vllm"\ngpus_per_node = 1\n')
    assert with_models_found(spec).model is not None


def test_a_certificate_that_cannot_be_used_starts_nothing(write, tmp_path):
    pem = self_signed(new_key(), "x", ["127.0.0.1"], datetime.now(UTC))
    key, other, missing = tmp_path / "key.pem", tmp_path / "other.pem", tmp_path / "missing.pem"
    key.write_text(pem)
    other.write_text(self_signed(new_key(), "x", ["127.0.0.1"], datetime.now(UTC)))
    lines = "[router]\ntls = 'files'\ntls_certificate = '{}'\ntls_key = '{}'"
    assert read_spec(write(lines.format(key, key))).router.tls == "files"
    for certificate, private, said in (
        (missing, key, f"router.tls_certificate = '{missing}': cannot be read: No such file or directory"),
        (key, missing, f"router.tls_key = '{missing}': cannot be read: No such file or directory"),
        (key, other, f"router.tls_key = '{other}': this is not the key of router.tls_certificate"),
    ):
        done = CliRunner().invoke(app, ["serve", str(write(lines.format(certificate, private))), "--local"])
        assert isinstance(done.exception, SpecError) and said in str(done.exception)
    assert not (tmp_path / "runs").exists()
