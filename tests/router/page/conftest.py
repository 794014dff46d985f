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


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    """An empty tab of a desktop's width."""
    tab = browser.tab()
    yield tab
    tab.close()


@pytest.fixture
def board(tab: Tab, two: Deployment) -> Tab:
    """A tab that shows the status of two workers."""
    tab.open(f"{two.url}/#key={two.run.key()}")
    tab.wait_for("cpu-1", "#worker-rows")
    return tab
