"""Slurm's notations."""

import time

import pytest

from slurminfer.slurm.hostlist import expand
from slurminfer.slurm.values import duration_s, pairs, unix_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1-00:00:00", 86_400), ("10:00", 600), ("00:05:00", 300), ("1:00", 60), ("365-00:00:00", 31_536_000),
     ("UNLIMITED", None), ("NONE", None), ("", None), ("INVALID", None), ("N/A", None)],
)  # fmt: skip
def test_durations(text, seconds):
    assert duration_s(text) == seconds


def test_times_are_unix_seconds_or_local():
    assert unix_time("1796003936") == 1796003936.0
    assert unix_time(time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(1796003936))) == 1796003936.0
    assert (unix_time("N/A"), unix_time("Unknown"), unix_time("")) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n1", ("n1",)),
        ("n1,m2", ("n1", "m2")),
        ("n[1-3,7],gpu[08-10]-ib", ("n1", "n2", "n3", "n7", "gpu08-ib", "gpu09-ib", "gpu10-ib")),
        ("r[1-2]c[0-1]", ("r1c0", "r1c1", "r2c0", "r2c1")),
        ("n[a-c]", ("na-c",)),  # no notation of Slurm's: left as it is
        ("(null)", ()), ("", ()), ("None assigned", ()),
    ],
)  # fmt: skip
def test_hostlists(text, names):
    assert expand(text) == names


def test_the_first_of_a_key_counts():
    assert pairs("Name=a Flags=MAINT,X State=ACTIVE Comment=until Name=b") == {
        "Name": "a", "Flags": "MAINT,X", "State": "ACTIVE", "Comment": "until",
    }  # fmt: skip
