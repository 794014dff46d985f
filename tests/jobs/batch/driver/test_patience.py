"""How long an endpoint is waited for that does not answer, and what is said of it."""

import logging

import pytest

from slurminfer.core.errors import BatchError
from slurminfer.jobs.batch.driver.retry import Patience


def test_why_a_batch_waits_is_said_once_until_the_endpoint_is_back(caplog):
    now = [0.0]
    patience = Patience(600.0, lambda: now[0])
    with caplog.at_level(logging.WARNING):
        for now[0] in (0.0, 5.0, 11.0, 12.0, 100.0):
            patience.check("http://h:1", "no connection: Connection refused")
        (told,) = caplog.messages
        assert told == (
            "http://h:1 has not answered for 11 s (last: no connection: Connection refused); the batch waits for it, "
            "600 s at most"
        )
        patience.reward()
        for now[0] in (200.0, 220.0):
            patience.check("http://h:1", "cut")
        assert len(caplog.messages) == 2
    now[0] = 801.0
    with pytest.raises(BatchError, match=r"has not answered a request for 601 s \(last: cut\); nothing is lost"):
        patience.check("http://h:1", "cut")
