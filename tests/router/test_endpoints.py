"""What is said of a path that the endpoint does not have."""

import pytest

from slurminfer.router.endpoints import no_such_path


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/chat/completion", "no such path; /v1/chat/completions is probably meant; there are: "),
        ("/openai/v2/chat/completions", "/v1/chat/completions is probably meant: a client's base URL ends with /v1; "),
        ("/v1/chat/completions/models", "/v1/models is probably meant: a client's base URL ends with /v1; "),
        ("/v1/fine_tuning/jobs", "no such path; there are: "),
    ],
)
def test_a_path_that_is_nearly_right_is_told_which_one_is_meant(path, said):
    assert said in no_such_path("POST", path)
