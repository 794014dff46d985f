"""A spec becomes jobs: what is resolved before anything is submitted."""

import pytest

from slurminfer.core.errors import SpecError
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.serve.spec import with_models_found

from ...support.model_directories import write_directory


def test_model_and_draft_become_directories(tmp_path, monkeypatch):
    model, draft = write_directory(tmp_path / "large"), write_directory(tmp_path / "small")
    monkeypatch.chdir(tmp_path)
    spec = with_models_found(
        parse_spec(
            "name = 'x'\n[model]\npath = 'large'\n[[pool]]\n[speculative]\nmethod = 'draft'\ndraft_model = 'small'\n"
        )
    )
    assert spec.model is not None and spec.model.path == str(model) and spec.model.name == "large"
    assert spec.speculative is not None and spec.speculative.draft_model == str(draft)


def test_without_a_draft_there_is_none_to_find(tmp_path):
    model = write_directory(tmp_path / "large")
    spec = with_models_found(parse_spec(f"name = 'x'\n[model]\npath = '{model}'\n[[pool]]\n[speculative]\n"))
    assert spec.speculative is not None and spec.speculative.draft_model is None


def test_a_head_that_guesses_has_no_tokenizer(tmp_path):
    model, head = write_directory(tmp_path / "large"), write_directory(tmp_path / "head")
    (head / "tokenizer.json").unlink()
    guesses = f"[speculative]\nmethod = 'eagle3'\ndraft_model = '{head}'\n"
    spec = with_models_found(
        parse_spec(f"name = 'x'\n[model]\npath = '{model}'\n[[pool]]\nengine = 'sglang'\n{guesses}")
    )
    assert spec.speculative is not None and spec.speculative.draft_model == str(head)


def test_rules_are_checked_again_with_the_names_of_models_that_are_found(tmp_path, monkeypatch):
    """A converted GGUF file is called what its directory in the cache is called."""
    directory = write_directory(tmp_path / "m-0a1b2c3d")
    monkeypatch.setattr("slurminfer.jobs.serve.spec.resolve", lambda *_: directory)
    lines = "name = 'x'\n[model]\npath = '/m.gguf'\n[[pool]]\n[[router.rule]]\nmodel = 'alias'\nserve = '{}'\n"
    with pytest.raises(SpecError, match=r"rule\[0\].serve = 'm': expected a model that a pool serves: m-0a1b2c3d"):
        with_models_found(parse_spec(lines.format("m")))
