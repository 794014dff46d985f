"""Who is taken for a rank, who is not, and what rank 0 says of one that is gone."""

import errno
import json
import os
import queue
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace

import pytest

from slurminfer.core.errors import EngineError
from slurminfer.nodes.native.model.parallel.rendezvous.channel import Channel
from slurminfer.nodes.native.model.parallel.rendezvous.failure_detector import FailureDetector
from slurminfer.nodes.native.model.parallel.rendezvous.handshake import prove
from slurminfer.nodes.native.model.parallel.rendezvous.lifeline import Lifeline
from slurminfer.nodes.native.model.parallel.rendezvous.messages import (
    Alive,
    Gone,
    Hello,
    Loaded,
    Refused,
    Welcome,
    decode_to_rank,
    encode,
)
from slurminfer.nodes.native.model.parallel.rendezvous.timeouts import DEFAULT_TIMEOUTS, Timeouts

pytestmark = pytest.mark.process

# Silence is noticed sooner, from ranks that say more often that they live.
QUICK = Timeouts(hello_s=1, loaded_s=1, tick_s=0.1, heartbeat_s=0.1, unacknowledged_s=2)
KEY = "a worker's secret"
RANK = """
import json, queue, sys, time
from slurminfer.nodes.native.model.parallel.rendezvous.lifeline import Lifeline
from slurminfer.nodes.native.model.parallel.rendezvous.messages import Gone
from slurminfer.nodes.native.model.parallel.rendezvous.timeouts import Timeouts
address, rank, key, timeouts, *words = sys.argv[1:]
child_exits = queue.SimpleQueue()
lifeline = Lifeline(address, int(rank), key, child_exits, Timeouts(**json.loads(timeouts)))
if "loaded" in words:
    lifeline.report_loaded()
print("here", flush=True)
for line in sys.stdin:
    if line.startswith("child"):
        child_exits.put(Gone(3, "n2", "killed by SIGKILL"))
    else:
        lifeline.report_failure(line)
time.sleep(60)
"""
RANK_0 = """
import json, queue, sys
from slurminfer.nodes.native.model.parallel.rendezvous.failure_detector import FailureDetector
from slurminfer.nodes.native.model.parallel.rendezvous.timeouts import Timeouts
losses = queue.SimpleQueue()
timeouts = Timeouts(**json.loads(sys.argv[2]))
detector = FailureDetector(sys.argv[1] + ":0", 1, "key", queue.SimpleQueue(), losses.put, timeouts)
print(detector.address, flush=True)
print(losses.get(), flush=True)
"""


class Recorder(socket.socket):
    """A connection that keeps what is sent, and sends what `change` makes of it."""

    def __init__(self, connection: socket.socket, change: Callable[[bytes], list[bytes]]) -> None:
        super().__init__(fileno=os.dup(connection.fileno()))
        self.settimeout(10)
        self.connection, self.change, self.sent = connection, change, list[bytes]()

    def sendall(self, said: bytes, flags: int = 0) -> None:  # type: ignore[override]
        self.sent.append(said)
        for part in self.change(said):
            self.connection.sendall(part)


class Meeting:
    """Rank 0, here, and others in processes of their own."""

    def __init__(self, others: int = 1, key: str = KEY, timeouts: Timeouts = DEFAULT_TIMEOUTS) -> None:
        self.timeouts = timeouts
        self.losses: queue.SimpleQueue[EngineError] = queue.SimpleQueue()
        self.child_exits: queue.SimpleQueue[Gone] = queue.SimpleQueue()
        self.detector = FailureDetector("127.0.0.1:0", others, key, self.child_exits, self.losses.put, timeouts)
        self.processes: list[subprocess.Popen[str]] = []
        self.callers: list[socket.socket] = []
        self.address = self.detector.address

    def add(self, rank: int, *words: str, key: str = KEY) -> "subprocess.Popen[str]":
        timeouts = json.dumps(asdict(self.timeouts))
        argv = [sys.executable, "-c", RANK, self.address, str(rank), key, timeouts, *words]
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.processes.append(process)
        return process

    def join(self, rank: int, *words: str) -> "subprocess.Popen[str]":
        process = self.add(rank, *words)
        assert process.stdout is not None and process.stdout.readline() == "here\n"
        return process

    def call(self, said: bytes = b"") -> socket.socket:
        host, _, port = self.address.rpartition(":")
        caller = socket.create_connection((host, int(port)), timeout=10)
        self.callers.append(caller)
        caller.sendall(said)
        return caller

    def record(self, change: Callable[[bytes], list[bytes]] = lambda said: [said]) -> "Recorder":
        recorder = Recorder(self.call(), change)
        self.callers.append(recorder)
        return recorder

    def admitted(self, rank: int, key: str = KEY) -> Channel:
        """A rank that the test plays."""
        channel = prove(self.call(), rank, key)
        assert isinstance(decode_to_rank(channel.recv()[0]), Welcome)
        return channel

    def loss(self, timeout_s: float = 10) -> str:
        return str(self.losses.get(timeout=timeout_s))

    def end(self) -> None:
        self.detector.close()
        for caller in self.callers:
            caller.close()
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def meeting():
    made: list[Meeting] = []

    def make(others: int = 1, key: str = KEY, timeouts: Timeouts = DEFAULT_TIMEOUTS) -> Meeting:
        made.append(Meeting(others, key, timeouts))
        return made[-1]

    yield make
    for each in made:
        each.end()


def say(process: "subprocess.Popen[str]", text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(text + "\n")
    process.stdin.flush()


def is_hung_up(caller: socket.socket) -> bool:
    """What is left of the answer is thrown away; a reset counts as well."""
    with suppress(ConnectionError):
        while caller.recv(4096):
            pass
    return True


NOISE = random.Random(0)
PREAMBLE = b"slurminfer rank\0"
STRANGE = {
    "curl": b"GET / HTTP/1.1\r\nHost: n1\r\n\r\n" + b"Accept: */*\r\n" * 10,
    "noise": NOISE.randbytes(3000),
    "zeros": bytes(52),
    "a hello of another program": b"slurminfer rank " + bytes(36),
    "a proof before it is asked for": PREAMBLE + bytes(36 + 32),
    "a message before it is asked for": PREAMBLE + bytes(36) + encode(Gone(1, "n9", "says a stranger")),
    "a pickle": b"\x80\x04\x95" + NOISE.randbytes(100),
    "what TCPStore's clients say": b"\x0f" + bytes(4) + b"\x85\xd5\x3c\x97" * 20,
}


@pytest.mark.parametrize("said", STRANGE.values(), ids=STRANGE)
def test_strangers_are_dropped_and_take_nobodys_place(meeting, said):
    room = meeting()
    assert is_hung_up(room.call(said))
    room.call(said).close()
    process = room.join(1)
    room.detector.wait_for_ranks(5)
    assert room.losses.empty()
    say(process, "words of rank 1")
    assert room.loss() == f"rank 1 on {socket.gethostname()} is gone: words of rank 1"


def test_ten_megabytes_of_a_stranger_are_not_kept(meeting):
    room = meeting()
    caller = room.call()
    with pytest.raises(ConnectionError):
        for _ in range(1000):
            caller.sendall(b"x" * 10_000)
    room.join(1)
    room.detector.wait_for_ranks(5)


def test_silence_and_half_a_hello_are_dropped_after_a_while(meeting):
    room = meeting(timeouts=QUICK)
    assert all(map(is_hung_up, [room.call(), room.call(PREAMBLE), room.call(PREAMBLE + bytes(36))]))
    room.join(1)
    room.detector.wait_for_ranks(5)
    assert room.losses.empty()


def test_many_strangers_take_few_files_and_no_threads(meeting):
    room = meeting()
    threads = threading.active_count()
    callers = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    try:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(400):
            callers.append(room.call())
        while len(os.listdir("/proc/self/fd")) - before - len(callers) > 64:  # until the detector has seen the last
            time.sleep(0.01)
        assert threading.active_count() <= threads  # those of other tests may end meanwhile
        room.join(1)
        room.detector.wait_for_ranks(5)
        assert all(map(is_hung_up, callers))
    finally:
        for caller in callers:
            caller.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert room.losses.empty()


def test_nobody_is_heard_once_all_have_come(meeting):
    room = meeting()
    room.join(1)
    room.detector.wait_for_ranks(5)
    with pytest.raises(ConnectionRefusedError):
        room.call()


@pytest.mark.parametrize(
    ("rank", "key", "why"),
    [
        (1, "another", "it has hung up; its secret may be another"),
        (1, "", "it has hung up; its secret may be another"),
        (3, KEY, "expected rank 1 to 2"),
    ],
)
def test_a_rank_that_is_refused_is_told_why(meeting, rank, key, why):
    room = meeting(2)
    said = room.add(rank, key=key).communicate(timeout=20)[1]
    assert f"EngineError: rank {rank}: whoever listens at {room.address} does not take it: {why}" in said
    with pytest.raises(EngineError, match=r"no lifeline within 0 s from rank 1, 2"):
        room.detector.wait_for_ranks(0.1)
    assert room.losses.empty()


def test_the_same_rank_twice_is_refused_and_the_first_stays(meeting):
    room = meeting(2)
    first = room.join(1)
    assert "rank 1 is there already" in room.add(1).communicate(timeout=20)[1]
    room.join(2)
    room.detector.wait_for_ranks(5)
    assert room.losses.empty()
    say(first, "words of the first")
    assert room.loss().endswith("words of the first")


def test_what_was_recorded_of_a_rank_opens_no_other_connection(meeting):
    room = meeting(2)
    recorder = room.record()
    channel = prove(recorder, 1, KEY)
    channel.send(encode(Loaded()))
    hello, proof, message = recorder.sent
    again = room.call(hello)
    assert len(again.recv(4096)) == 32  # another nonce
    again.sendall(proof)
    assert again.recv(4096) == b""
    assert is_hung_up(room.call(hello + proof + message))


def test_a_rank_that_ends_without_a_word(meeting):
    room = meeting()
    room.join(1).kill()
    assert room.loss().endswith("is gone: no reason is known")


def test_its_parent_knows_better_wherever_it_is(meeting):
    """Rank 3 is a child of rank 2; its connection is closed before anybody says why."""
    room = meeting(3)
    room.join(1)
    parent, child = room.join(2), room.join(3)
    room.detector.wait_for_ranks(5)
    child.kill()
    child.wait()  # its connection is closed
    say(parent, "child")
    assert room.loss() == "rank 3 on n2 is gone: killed by SIGKILL"


def test_rank_0s_own_children_too(meeting):
    room = meeting()
    child = room.join(1)
    child.kill()
    child.wait()
    room.child_exits.put(Gone(1, "n1", "killed by SIGSEGV"))
    assert room.loss(2) == "rank 1 on n1 is gone: killed by SIGSEGV"


def test_a_child_that_never_came(meeting):
    room = meeting()
    room.child_exits.put(Gone(1, "n1", "exited with 3"))
    assert room.loss(3) == "rank 1 on n1 is gone: exited with 3"


def test_what_a_rank_says_of_itself_counts_more_than_its_exit_status(meeting):
    room = meeting()
    channel = room.admitted(1)
    room.detector.wait_for_ranks(5)
    room.child_exits.put(Gone(1, "n9", "exited with 1"))
    channel.send(encode(Gone(1, "n9", "no memory for it")))
    assert room.loss().endswith("no memory for it")


def test_silence_is_told_of_by_rank_soon_if_it_has_loaded(meeting):
    room = meeting(2, timeouts=QUICK)
    loading, loaded = room.join(1), room.join(2, "loaded")
    room.detector.wait_for_ranks(5)
    for rank in (loading, loaded):  # the one that loads falls silent first, and may be longer
        rank.send_signal(signal.SIGSTOP)
    assert room.loss(10).startswith(f"rank 2 on {socket.gethostname()} is gone: it has been silent for 1 s")


def test_what_a_rank_says_in_pieces_is_one_message(meeting):
    room = meeting()
    recorder = room.record(lambda said: [bytes([byte]) for byte in said])
    channel = prove(recorder, 1, KEY)
    for message in (Hello("n9"), Loaded(), Alive(), Gone(1, "n9", "in pieces")):
        channel.send(encode(message))
    assert room.loss() == "rank 1 on n9 is gone: in pieces"


CHANGES = {
    "a bit": lambda said: [said[:-1] + bytes([said[-1] ^ 1])],
    "a bit of the HMAC": lambda said: [said[:10] + bytes([said[10] ^ 1]) + said[11:]],
    "twice": lambda said: [said, said],
    "without an HMAC": lambda said: [said[:4] + bytes(32) + said[36:]],
    "a length of gigabytes": lambda said: [b"\xff\xff\xff\xff" + said[4:]],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whoever_writes_into_a_ranks_connection_is_found_out(meeting, change):
    room = meeting()
    recorder = room.record()
    channel = prove(recorder, 1, KEY)
    channel.send(encode(Hello("n9")))
    recorder.change = change
    channel.send(encode(Alive()))
    assert room.loss().startswith("rank 1 on n9 is gone: it has sent an invalid message: a message")


def test_messages_in_another_order_are_found_out(meeting):
    room = meeting()
    recorder = room.record()
    channel = prove(recorder, 1, KEY)
    recorder.change = lambda said: []
    channel.send(encode(Alive()))
    channel.send(encode(Loaded()))
    recorder.connection.sendall(recorder.sent[-1] + recorder.sent[-2])
    assert "a message whose HMAC is wrong" in room.loss()


@pytest.mark.parametrize("message", [b"", b"nonsense", encode(Refused("")), b"\x80\x04\x95pickle"])
def test_a_rank_that_says_what_nobody_understands_is_lost(meeting, message):
    room = meeting()
    room.admitted(1).send(message)
    assert "it has sent an invalid message" in room.loss()


class FakeRank0:
    """Listens where rank 0 should, and answers with what it is given; `heard` is all that it has been told."""

    def __init__(self, *answers: bytes) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.heard: list[bytes] = []
        threading.Thread(target=self._serve, args=(answers,), daemon=True).start()

    def _serve(self, answers: tuple[bytes, ...]) -> None:
        with suppress(OSError):  # closed
            while True:
                caller, _ = self.listener.accept()
                with caller:
                    self.heard.append(caller.recv(4096))
                    for answer in answers:
                        caller.sendall(answer)
                        self.heard.append(caller.recv(4096))


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ((bytes(32), bytes(32)), "it does not know the secret of this worker"),
        ((bytes(32), NOISE.randbytes(3000)), "it does not know the secret of this worker"),
        ((bytes(32),), "it has hung up; its secret may be another"),
    ],
)
def test_whoever_listens_in_rank_0s_place_learns_nothing_and_is_not_believed(answers, why):
    fake = FakeRank0(*answers)
    with pytest.raises(EngineError, match=f"rank 1: whoever listens at {fake.address} does not take it: {why}"):
        Lifeline(fake.address, 1, KEY, queue.SimpleQueue(), QUICK)
    fake.listener.close()
    hello, proof = fake.heard[:2]
    assert hello.startswith(PREAMBLE) and (len(hello), len(proof)) == (52, 32)
    assert not any(KEY.encode() in said for said in fake.heard)


def test_who_says_nothing_or_hangs_up_is_asked_again_until_the_meeting_is_over():
    fake = FakeRank0()
    with pytest.raises(EngineError, match="does not take it: it has hung up"):
        Lifeline(fake.address, 1, KEY, queue.SimpleQueue(), replace(QUICK, meeting_s=0.3))
    fake.listener.close()
    assert len(fake.heard) > 1


def test_messages_come_in_order_and_a_goodbye_is_no_failure(meeting):
    room = meeting()
    heard = "for _ in range(3): print(lifeline.recv(), flush=True)\nlifeline.recv()"
    argv = [sys.executable, "-c", RANK.replace("for line in sys.stdin:", f"{heard}\nfor line in sys.stdin:")]
    process = subprocess.Popen([*argv, room.address, "1", KEY, "{}"], stdout=subprocess.PIPE, text=True)
    room.processes.append(process)
    room.detector.wait_for_ranks(20)
    messages = (b"one", b"two" * 100_000, b"3")
    for message in messages:
        room.detector.broadcast(message)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(4)] == ["here\n", *(f"{message!r}\n" for message in messages)]
    room.detector.close()
    assert process.wait(10) == 0
    assert room.losses.empty()


def test_no_rank_0_is_said_so():
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with pytest.raises(EngineError, match=f"rank 1: no lifeline to rank 0 at 127.0.0.1:{port}: .*refused"):
        Lifeline(f"127.0.0.1:{port}", 1, KEY, queue.SimpleQueue(), replace(QUICK, meeting_s=0))


class Unanswered:
    """A connection that has timed out, as Linux shows it: the thread that sends is told, the other sees the end."""

    def sendall(self, said: bytes) -> None:
        raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    def recv(self, size: int) -> bytes:
        return b""


def test_a_timeout_that_the_sending_thread_was_told_of_is_no_orderly_end():
    channel = Channel(Unanswered(), b"", b"", 100)  # type: ignore[arg-type]
    assert channel.recv() == []
    with pytest.raises(TimeoutError):
        channel.send(b"a heartbeat")
    with pytest.raises(TimeoutError):
        channel.recv()


@pytest.fixture
def nodes():
    """Two network namespaces with a cable between them: name -> address. The cable is pulled by `ip -n`."""
    names = {f"lifeline-{os.getpid()}-{i}": f"10.213.7.{i}" for i in (1, 2)}
    first, second = names
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    if subprocess.run(["ip", "netns", "add", first], capture_output=True).returncode:
        pytest.skip("network namespaces cannot be made here")
    try:
        subprocess.run(["ip", "netns", "add", second], check=True)
        cable = ["type", "veth", "peer", "name", "cable", "netns", second]
        subprocess.run(["ip", "-n", first, "link", "add", "cable", *cable], check=True)
        for name, address in names.items():
            subprocess.run(["ip", "-n", name, "address", "add", f"{address}/24", "dev", "cable"], check=True)
            subprocess.run(["ip", "-n", name, "link", "set", "cable", "up"], check=True)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False)


def test_a_node_that_vanishes_is_missed_on_both_sides(nodes):
    def run(name: str, *words: str) -> "subprocess.Popen[str]":
        argv = ["ip", "netns", "exec", name, sys.executable, "-c", *words]
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    (first, address), (second, _) = nodes.items()
    timeouts = json.dumps(asdict(QUICK))
    with run(first, RANK_0, address, timeouts) as head:
        assert head.stdout is not None
        meeting = head.stdout.readline().strip()
        with run(second, RANK, meeting, "1", "key", timeouts, "loaded") as rank:
            assert rank.stdout is not None and rank.stdout.readline() == "here\n"
            subprocess.run(["ip", "-n", first, "link", "set", "cable", "down"], check=True)
            assert "it has been silent for 1 s" in head.stdout.readline()
            assert rank.stderr is not None and "rank 0's node has not answered for 2 s" in rank.stderr.read()
            assert rank.wait(5) == 1
