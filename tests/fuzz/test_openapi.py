"""A router before stub workers, asked for what its own OpenAPI description allows, and for some that it does not.

Schemathesis makes the requests. What comes back has to be described: no 500, no other status, no other form.
"""

from collections.abc import Iterator

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import checks

from slurminfer.router.api.description.openapi import description

from ..router.conftest import Deployment
from ..support.loop import Loop

pytestmark = [pytest.mark.process, pytest.mark.slow]

schema = schemathesis.openapi.from_dict(description())
# Stub workers take any request, and clients may send more than the description has: that is the engines' business.
_ENGINES_OWN = [checks.negative_data_rejection, checks.positive_data_acceptance, checks.unsupported_method]
_DESCRIBED = {502, 503}


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURMINFER_LOCAL", "1")
        loop = Loop()
        deployment = Deployment(loop, tmp_path_factory.mktemp("described") / "run")
        deployment.add("cpu-0")
        deployment.add("cpu-1")
        deployment.start_router()
        yield deployment
        deployment.close()
        loop.close()


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """Connections that stay open: to open one for each request takes a fifth of the test."""
    with requests.Session() as session:
        session.trust_env = False
        yield session


@schema.parametrize()
@settings(
    max_examples=12,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_described(case: schemathesis.Case, deployment: Deployment, session: requests.Session) -> None:
    headers = {"Authorization": f"Bearer {deployment.run.key()}"}
    answer = case.call(base_url=deployment.url, session=session, headers=headers, timeout=20)
    assert answer.status_code < 500 or answer.status_code in _DESCRIBED
    case.validate_response(answer, excluded_checks=[*_ENGINES_OWN, checks.not_a_server_error], headers=headers)


def test_the_description_is_served_to_everybody(deployment: Deployment) -> None:
    answer = httpx.get(f"{deployment.url}/openapi.json")
    assert answer.status_code == 200
    assert answer.json() == description()
