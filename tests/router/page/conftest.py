"""The status page in a real Chromium, before a real router with stub workers."""

from collections.abc import Iterator

import pytest

from ...support.browser import CHROMIUM, Browser, Tab
from ...support.loop import Loop
from ..conftest import Deployment


@pytest.fixture(scope="session")
def browser(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine (Debian's package chromium)")
    browser = Browser(loop, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def lasting(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A router before two workers, for tests that change nothing of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURMINFER_LOCAL", "1")
        deployment = Deployment(loop, tmp_path_factory.mktemp("lasting") / "run")
        deployment.add("cpu-0")
        deployment.add("cpu-1")
        deployment.start_router()
        yield deployment
        deployment.close()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    """An empty tab of a desktop's width."""
    tab = browser.tab()
    yield tab
    tab.close()


@pytest.fixture(scope="module")
def _lent(browser: Browser) -> Iterator[Tab]:
    tab = browser.tab()
    yield tab
    tab.close()


@pytest.fixture
def used(_lent: Tab) -> Tab:
    """A tab that other tests have used, and that has forgotten them."""
    _lent.renew()
    return _lent


def show(tab: Tab, deployment: Deployment) -> Tab:
    """Let a tab show the status of a deployment with a worker cpu-1."""
    tab.open(f"{deployment.url}/#key={deployment.run.key()}")
    tab.wait_for("cpu-1", "#worker-rows")
    return tab


@pytest.fixture
def board(used: Tab, lasting: Deployment) -> Tab:
    """A tab that shows the status of two workers."""
    return show(used, lasting)


@pytest.fixture
def changing(used: Tab, two: Deployment) -> Tab:
    """A tab that shows the status of `two`."""
    return show(used, two)
