"""Beacons, and the tasks of a job that meet; over loopback."""

import socket
import threading

import pytest

from slurminfer.core.errors import RunDirectoryError
from slurminfer.core.files import write_atomic
from slurminfer.core.site.machine import Interface, Network
from slurminfer.nodes.doctor import meeting, network, task
from slurminfer.nodes.doctor.beacon import Beacon, knock, proof_of

from ...support.sites import machine


def on_loopback(host: str = "n1") -> Network:
    return Network(host=host, address="127.0.0.1", host_addresses=("127.0.0.1",), interfaces=())


def test_a_beacon_answers_with_its_proof_and_the_time():
    with Beacon(proof_of("secret", 0)) as beacon:
        found = knock("127.0.0.1", beacon.port, proof_of("secret", 0))
        assert found.is_open and found.seconds is not None
        assert found.clock_offset_s is not None and found.clock_error_s is not None
        other = knock("127.0.0.1", beacon.port, proof_of("secret", 1))
    assert (other.is_open, other.why_not) == (False, "another node answers there")
    assert not knock("127.0.0.1", beacon.port, proof_of("secret", 0)).is_open


def test_a_beacon_is_reached_by_ipv6():
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with Beacon(proof_of("secret", 0)) as beacon:
        assert knock("::1", beacon.port, proof_of("secret", 0)).is_open


def test_another_program_on_the_port_is_no_beacon():
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: server.accept()[0].close())
        thread.start()
        found = knock("127.0.0.1", server.getsockname()[1], "proof")
        thread.join()
    assert (found.is_open, found.why_not) == (False, "another program answers there")


def test_a_link_local_address_is_reached_through_an_own_interface():
    own = Network(
        host="n2", address="", host_addresses=(),
        interfaces=(Interface(name="ib0", addresses=("fe80::2%ib0",)), Interface(name="eth0", addresses=("10.0.0.2",))),
    )  # fmt: skip
    assert network.from_here("10.0.0.1", own) == ["10.0.0.1"]
    assert network.from_here("fe80::1%ib0", own) == ["fe80::1%ib0"]
    assert network.from_here("fe80::1%hsn0", own) == ["fe80::1%ib0"]  # named otherwise there
    assert network.from_here("fe80::1%ib0", on_loopback()) == []


def test_targets_are_the_announced_address_and_those_of_interfaces_but_loopback():
    links = (Interface(name="lo", addresses=("127.0.0.1", "::1")), Interface(name="ib0", addresses=("10.0.0.1",)))
    seen = Network(host="n1", address="10.0.0.1", host_addresses=("10.0.0.1", "127.0.1.1"), interfaces=links)
    assert network.targets(seen) == {"10.0.0.1": "ib0", "127.0.1.1": "the host's name"}


def test_two_tasks_look_and_reach_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(network, "network", on_loopback)
    write_atomic(tmp_path / meeting.SECRET, "secret")
    tasks = [
        threading.Thread(target=task.run, args=(tmp_path, rank, 2, lambda: (True, "")), kwargs={"see": machine})
        for rank in range(2)
    ]
    for thread in tasks:
        thread.start()
    assert meeting.wait_until(lambda: all(meeting.report_file(tmp_path, rank).exists() for rank in range(2)), 30)
    target = meeting.read_listening(tmp_path, 1)
    assert target is not None
    from_here = meeting.reach("login", on_loopback("login"), target, 1, "secret")
    write_atomic(tmp_path / meeting.DONE, "")
    for thread in tasks:
        thread.join()
    assert [(route.source, route.target, route.is_open) for route, _ in from_here] == [("login", "n1", True)]
    for rank in range(2):
        report = meeting.read_report(tmp_path, rank)
        assert report is not None and report.node.may_submit
        assert [route.is_open for route in report.routes] == [True]


def test_a_node_that_does_not_see_the_folder_says_so(tmp_path):
    with pytest.raises(RunDirectoryError, match="does not see"):
        task.run(tmp_path / "absent", 0, 1, lambda: (None, ""))


def test_a_file_of_another_kind_is_an_error(tmp_path):
    write_atomic(meeting.report_file(tmp_path, 0), "{}")
    with pytest.raises(RunDirectoryError, match="no file of the doctor"):
        meeting.read_report(tmp_path, 0)
