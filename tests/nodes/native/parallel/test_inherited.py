"""What a node's ranks know of each other: the secret, and memory that only they can have."""

import mmap
import os

import pytest

from slurminfer.core.errors import UsageError
from slurminfer.nodes.native.model.parallel.rendezvous.inherited import (
    MEMORY_VARIABLE,
    inherited_memory,
    make_memory,
    make_secret,
    rank_secret,
)
from slurminfer.nodes.native.options import API_KEY_VARIABLE, RANK_SECRET_VARIABLE, ParallelOptions

ONE_NODE = ParallelOptions(tensor_parallel=2)
TWO_NODES = ParallelOptions(tensor_parallel=2, nodes=2, rendezvous="127.0.0.1:1")
CHILD = ParallelOptions(tensor_parallel=2, local_rank=1, rendezvous="127.0.0.1:1")


def test_the_first_rank_of_one_node_draws_a_secret_whatever_the_api_key_is():
    first, second = dict[str, str](), {API_KEY_VARIABLE: "key"}
    for env in (first, second):
        make_secret(ONE_NODE, env)
    assert len(rank_secret(first)) == 64 and rank_secret(first) != rank_secret(second)
    assert second[API_KEY_VARIABLE] == "key"


def test_a_secret_that_is_given_stays():
    for place in (ONE_NODE, TWO_NODES, CHILD):
        env = {RANK_SECRET_VARIABLE: "given", API_KEY_VARIABLE: "key"}
        make_secret(place, env)
        assert rank_secret(env) == "given"


@pytest.mark.parametrize("env", [{}, {RANK_SECRET_VARIABLE: ""}, {API_KEY_VARIABLE: "the clients' key is none"}])
@pytest.mark.parametrize("place", [TWO_NODES, CHILD], ids=["two nodes", "a child"])
def test_ranks_that_cannot_know_one_that_is_drawn_are_refused(place, env):
    with pytest.raises(UsageError, match=f"{RANK_SECRET_VARIABLE} is missing in the environment: expected the same"):
        make_secret(place, env)


def test_memory_is_shared_by_its_number():
    env: dict[str, str] = {}
    file = make_memory(env)
    os.ftruncate(file, 4096)
    with mmap.mmap(inherited_memory(env), 4096) as one, mmap.mmap(inherited_memory(env), 4096) as other:
        one[7] = 8
        assert other[7] == 8
    os.close(file)


def test_nothing_but_memory_of_ours_is_taken_for_it(tmp_path):
    path = tmp_path / "memfd:slurminfer "
    read, write = os.pipe()
    other = os.memfd_create("another")
    with path.open("w+") as file:
        for number in (file.fileno(), read, other):
            with pytest.raises(OSError, match="expected memory of this user"):
                inherited_memory({MEMORY_VARIABLE: str(number)})
    for each in (read, write, other):
        os.close(each)
    for said in ("", "-1", "/proc/1/fd/3", "3 4"):
        with pytest.raises(OSError, match="this rank has inherited no memory to share"):
            inherited_memory({MEMORY_VARIABLE: said})
    with pytest.raises(OSError, match="Bad file descriptor"):
        inherited_memory({MEMORY_VARIABLE: "99999"})
