"""The site profile: kept, found again, never mixed up."""

import msgspec
import pytest

from slurminfer.core.errors import RunDirectoryError
from slurminfer.core.paths import site_root
from slurminfer.core.site.communication import CommFit, CommPoint, CommProfile, ring_share, ring_steps
from slurminfer.core.site.store import read_comms, write_comm

FIT = CommFit(
    operation="all_reduce", points=(CommPoint(1024, 1e-4), CommPoint(4096, 2e-4)), alpha_s=1e-4, beta_s_per_byte=1e-9,
    error=0.1, worst_error=0.2, step_alpha_s=5e-5, step_beta_s_per_byte=1e-9,
)  # fmt: skip
PROFILE = CommProfile(
    date="2026-01-02T03:04:05+00:00", partition="cpu", hosts=("n1", "n2"), gpu=None, ranks=2, backend="gloo",
    interface="eth0", torch="2.13.0", operations=(FIT,),
)  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "home"))


def changed(**changes):
    return msgspec.structs.replace(PROFILE, **changes)


def test_nothing_was_measured_yet():
    assert read_comms() == ()


def test_a_profile_comes_back_as_it_was():
    path = write_comm(PROFILE)
    assert path.is_relative_to(site_root()) and path.name.startswith("cpu-n1+n2-gloo-2n2r-")
    assert read_comms() == (PROFILE,)
    assert read_comms()[0].operations[0].seconds(1e6) == pytest.approx(1.1e-3)


def test_a_later_one_replaces_that_of_its_key_only():
    others = [
        changed(partition=None, hosts=("n1",)),
        changed(ranks=4),
        changed(hosts=("n1", "n3")),
        changed(gpu="NVIDIA H100 80GB HBM3", backend="nccl"),
        changed(hosts=tuple(f"a-host-with-a-long-name-{index}" for index in range(40)), ranks=40),
    ]
    for profile in (PROFILE, *others):
        write_comm(profile)
    later = changed(date="2027-01-02T03:04:05+00:00", interface="ib0")
    write_comm(later)
    found = read_comms()
    assert found[0] == later and PROFILE not in found
    assert len(found) == 6 and all(profile in found for profile in others)


def test_nodes_with_the_same_gpus_share_a_key():
    gpus = changed(gpu="NVIDIA H100 80GB HBM3", backend="nccl")
    assert msgspec.structs.replace(gpus, hosts=("n3", "n4")).key == gpus.key
    assert changed(hosts=("n3", "n4")).key != PROFILE.key


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no measurement of communication"),
        ('{"date": 3}', "is no measurement of communication"),
        (msgspec.json.encode(changed(version=7)).decode(), "version = 7: expected 1; remove it and measure again"),
    ],
)
def test_a_file_that_is_none_is_named(text, said):
    path = write_comm(PROFILE)
    path.write_text(text)
    with pytest.raises(RunDirectoryError, match=said) as caught:
        read_comms()
    assert str(path) in str(caught.value)


def test_a_ring():
    assert [ring_steps(name, 4) for name in ("all_reduce", "all_gather", "send_recv")] == [6, 3, 1]
    assert [ring_share(name, 4) for name in ("all_reduce", "all_gather", "send_recv")] == [1.5, 0.75, 1.0]
