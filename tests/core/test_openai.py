"""How a key is shown, and errors."""

import pytest

from slurminfer.core.net.openai import bearer_key, error_body


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", " Bearer "])
def test_the_scheme_is_written_in_any_case(scheme):
    assert bearer_key(f"{scheme} right") == b"right"


@pytest.mark.parametrize(
    "header", ["", "right", "Bearer", "Bearer ", "Bearer wrong", "Bearer rightt", "Basic right", "Bearer right x",
               "Bearerright", "Bearer \udcff", "\udcff \udcff"]
)  # fmt: skip
def test_anything_else_does_not_show_the_key(header):
    assert bearer_key(header) != b"right"


def test_an_error_has_openais_fields():
    assert error_body(400, "no", param="n", code="c") == {
        "error": {"message": "no", "type": "invalid_request_error", "param": "n", "code": "c"}
    }
    assert error_body(503, "no")["error"]["type"] == "server_error"
    assert error_body(405, "no")["error"]["type"] == "invalid_request_error"
