"""`slurminfer doctor` without Slurm, and how what it learns is kept."""

import json

import pytest

from slurminfer.core.errors import RunDirectoryError, UsageError
from slurminfer.core.site.store import read_site, write_site
from slurminfer.jobs.doctor import command, table
from slurminfer.jobs.doctor.examine import Wish, merged

from ...support import sites


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "home"


def test_without_slurm_it_looks_at_this_machine(capsys):
    command.run(Wish(), local=False, as_json=False)
    said = capsys.readouterr().out
    assert (
        "this machine" in said and "not looked at: Slurm, its partitions and its nodes (there is no Slurm here" in said
    )
    kept = read_site()
    assert kept is not None and kept.cluster is None and kept.partitions == ()


def test_a_slurm_that_does_not_answer_is_told_from_none(capsys, tmp_path):
    for name in ("sbatch", "scontrol"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    command.run(Wish(), local=False, as_json=False)
    assert "(Slurm does not answer" in capsys.readouterr().out


def test_json_has_the_profile_and_what_follows_from_it(capsys):
    command.run(Wish(), local=True, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert {"version", "here", "findings"} <= found.keys()


def test_a_partition_needs_slurm():
    with pytest.raises(UsageError, match="there is no Slurm here"):
        command.run(Wish(partitions=("gpu",)), local=False, as_json=False)
    with pytest.raises(UsageError, match="expected no --partition"):
        command.run(Wish(partitions=("gpu",)), local=True, as_json=False)


def test_a_profile_is_read_as_it_was_written(home):
    profile = sites.site(sites.partition(routes=(sites.route("n1", "n2", "10.0.0.2"),)))
    assert write_site(profile) == home / "site/doctor.json"
    assert read_site() == profile


def test_a_profile_of_another_layout_is_not_taken(home):
    assert read_site() is None
    path = write_site(sites.site())
    path.write_text(path.read_text().replace('"version": 1', '"version": 0'))
    with pytest.raises(RunDirectoryError, match="layout 0: expected 1"):
        read_site()


def test_partitions_that_were_not_looked_at_are_kept():
    old = sites.site(sites.partition("a"), sites.partition("b"))
    new = sites.site(sites.partition("b", job="9"))
    assert [(one.name, one.job) for one in merged(new, old).partitions] == [("a", "7"), ("b", "9")]
    assert merged(new, None) == new
    assert merged(sites.site(cluster=None), old).partitions == old.partitions
    assert merged(sites.site(cluster=sites.cluster(name="other")), old).partitions == ()


def test_what_an_earlier_job_has_seen_is_kept_where_the_latest_sees_nothing():
    old = sites.site(sites.partition("a", seen_at=50.0))
    new = sites.site(sites.partition("a", outcome="waited", reason="busy", seen_at=None, job=None, reports=()))
    (found,) = merged(new, old).partitions
    assert (found.outcome, found.reason, found.seen_at, found.job, len(found.reports)) == (
        "waited",
        "busy",
        50.0,
        "7",
        1,
    )


def test_the_table_has_rows_for_all_that_was_seen():
    reports = (sites.report("n1", clock_offset_s=0.001, clock_error_s=0.002), sites.report("n2"))
    found = sites.partition(reports=reports, routes=(sites.route("n1", "n2", "fe80::2%eth0"),))
    rows = dict(table.partition_rows(found, sites.machine()))
    assert rows["between nodes"] == "eth0 (fe80::2%eth0)"
    assert rows["clock"] == "+0.001 s (± 0.002)"
    assert rows["GPUs of a process"] == "CUDA_VISIBLE_DEVICES=0; H100"
    assert "SLURMINFER_HOME" not in rows  # as on this machine
    unseen = sites.partition(outcome="refused", reason="its state is DOWN", seen_at=None, reports=())
    assert dict(table.partition_rows(unseen, sites.machine()))["not seen"] == "its state is DOWN"
