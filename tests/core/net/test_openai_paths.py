"""The paths that clients mean."""

import pytest

from slurminfer.core.net.openai_paths import canonical_path


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/models/", "/v1/models"),
        ("//v1//models", "/v1/models"),
        ("/v1/v1/messages", "/v1/messages"),
        ("/chat/completions", "/v1/chat/completions"),
        ("/responses/resp_1", "/v1/responses/resp_1"),
        ("/tokenize", "/v1/tokenize"),
        ("/tokenize", "/v1/tokenize"),
        ("/v1/models//scratch//m", "/v1/models//scratch//m"),
        ("/models/v1/m/", "/v1/models/v1/m/"),
        ("//health/", "/health"),
        ("//", "/"),
        ("/v1/", "/v1"),
    ],
)
def test_what_is_meant(path, meant):
    assert canonical_path(path) == meant
    assert canonical_path(meant) == meant


@pytest.mark.parametrize(
    "path", ["/", "/v1/completions", "/v1x/models", "/v1models", "/tokenizer", "/workers", "*", "", "/v1"]
)
def test_other_paths_are_kept(path):
    assert canonical_path(path) == path
