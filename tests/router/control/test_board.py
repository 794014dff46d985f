"""The board: rows of several relays, seen by all; two processes."""

import subprocess
import sys

import pytest

from slurminfer.router.control.board import RING, TENANTS, WORKERS, Board
from slurminfer.router.control.queues import QueuesOnBoard

MINUTE = 29_000_000


@pytest.fixture
def board():
    board = Board.create(2)
    yield board
    board.close()


def test_counts_are_the_sums_of_all_relays(board):
    board.row(0).add(7, requests=1, tokens=100)
    board.row(1).add(7, requests=2, tokens=50)
    board.row(1).add(WORKERS - 1, requests=1)
    assert (board.in_flight(7), board.pending_tokens(7)) == (3, 150)
    assert (board.in_flight(WORKERS - 1), board.in_flight(8)) == (1, 0)
    board.row(1).add(7, requests=-2, tokens=-50)
    assert (board.in_flight(7), board.pending_tokens(7)) == (1, 100)


def test_requests_that_are_tried_alone_are_counted_until_their_relay_dies(board):
    board.row(0).suspect(7, 1)
    board.row(1).suspect(7, 1)
    assert (board.suspects(7), board.suspects(8)) == (2, 0)
    board.clear(1)
    board.row(0).suspect(7, -1)
    assert board.suspects(7) == 0


def test_slots_that_do_not_exist_are_errors(board):
    with pytest.raises(IndexError):
        board.row(0).add(WORKERS, requests=1)
    with pytest.raises(IndexError):
        board.in_flight(WORKERS)


def test_a_tenants_requests_count_by_minutes_and_tokens_for_ever(board):
    board.row(0).spend(3, MINUTE, requests=4, tokens=10)
    board.row(1).spend(3, MINUTE, requests=1)
    board.row(1).spend(3, MINUTE + 1, requests=2, tokens=5)
    assert board.spent(3, MINUTE)[:3] == (5, 0, 15)
    assert board.spent(3, MINUTE + 1)[:3] == (2, 5, 15)
    assert board.spent(3, MINUTE + 2)[:3] == (0, 2, 15)
    assert board.spent(3, MINUTE + 3)[:3] == (0, 0, 15)
    board.row(0).spend(3, MINUTE + 2, requests=1)
    assert board.spent(3, MINUTE + 2)[:3] == (1, 2, 15)
    assert board.spent(TENANTS - 1, MINUTE)[:3] == (0, 0, 0)


def test_a_request_that_is_taken_back_does_not_count(board):
    board.row(0).spend(0, MINUTE, requests=1)
    board.row(0).spend(0, MINUTE, requests=-1)
    board.row(0).spend(0, MINUTE + 1, requests=-1)  # taken back after the minute has changed
    assert board.spent(0, MINUTE + 1)[:3] == (0, 0, 0)


def test_what_waits_in_the_others_is_seen_by_class(board):
    assert board.waiting(0, 5) is None
    board.row(1).wait(5, [0, 2, 7])
    assert board.waiting(0, 5) == [0, 2, 7]
    assert board.waiting(1, 5) is None
    assert board.waiting(0, 6) is None
    board.clear(1)
    assert board.waiting(0, 5) is None


def test_a_clock_that_was_wrong_for_a_moment_suspends_no_limit(board):
    row = board.row(0)
    row.spend(0, MINUTE + 1_000_000, requests=1)
    row.spend(0, MINUTE, requests=2)
    row.spend(0, MINUTE + 1_000_001, requests=1)
    row.spend(0, MINUTE + 1, requests=3)
    assert board.spent(0, MINUTE + 1)[:2] == (3, 2)


def test_what_is_noted_minutes_late_does_not_undo_the_present(board):
    board.row(0).spend(0, MINUTE + 2, requests=5)
    board.row(0).spend(0, MINUTE, requests=-1)
    assert board.spent(0, MINUTE + 2)[:3] == (5, 0, 0)


def test_news_are_what_the_others_have_published(board):
    board.row(0).publish([(-(2**63), 5)])
    assert board.news(0) == [(-(2**63), 5)]  # the first call: what a relay of this row had published before
    assert board.news(1) == [(-(2**63), 5)]
    board.row(0).publish([(1, WORKERS - 1)])
    board.row(1).publish([(2, 0)])
    assert board.news(1) == [(1, WORKERS - 1)]
    assert board.news(0) == [(2, 0)]
    assert board.news(0) == board.news(1) == []


def test_a_reader_that_was_lapped_gets_the_newest(board):
    board.news(1)
    published = [(number, number % 9) for number in range(RING + 10)]
    for start in range(0, len(published), 1000):  # one of these goes on at the ring's beginning
        board.row(0).publish(published[start : start + 1000])
    news = board.news(1)
    assert len(news) == RING
    assert news[0] == (10, 1) and news[-1] == (RING + 9, (RING + 9) % 9)
    board.row(0).publish([(1, 1)])
    assert board.news(1) == [(1, 1)]


def test_an_entry_that_is_overwritten_while_it_is_read_is_left_out(board):
    row = board.row(0)
    row.publish([(1, 1)])
    row.publish([(2, 2)])
    row.owners[0] = 0  # its writer has come round and is in the midst of it
    assert board.news(1) == [(2, 2)]


def test_a_dead_relay_has_nothing_in_flight_and_its_tenants_have_still_spent(board):
    board.row(0).add(7, requests=1, tokens=100)
    board.row(1).add(7, requests=1, tokens=1)
    board.row(0).spend(3, MINUTE, requests=4, tokens=10)
    board.row(0).spend(3, MINUTE + 1, requests=1)
    board.row(0).reserve(3, 500)
    board.row(1).reserve(3, 20)
    assert board.spent(3, MINUTE)[3] == 520
    board.row(0).publish([(9, 7)])
    board.clear(0)
    board.clear(0)
    assert (board.in_flight(7), board.pending_tokens(7)) == (1, 1)
    assert board.spent(3, MINUTE + 1)[:3] == (1, 4, 10)
    assert board.spent(3, MINUTE)[3] == 20
    assert board.news(1) == [(9, 7)]
    board.row(0).publish([(10, 7)])  # its successor goes on in the same ring
    assert board.news(1) == [(10, 7)]


@pytest.mark.process
def test_another_process_sees_and_is_seen(board):
    code = f"""
from slurminfer.router.control.board import Board
board = Board.attach({board.fd})
row = board.row(1)
assert board.in_flight(7) == 1 and board.news(1) == [(11, 7)]
row.add(7, requests=2, tokens=30)
row.spend(0, {MINUTE}, requests=1, tokens=2)
for number in range(1000):
    row.publish([(number, number % 9)])
"""
    board.row(0).add(7, requests=1)
    board.row(0).publish([(11, 7)])
    subprocess.run([sys.executable, "-c", code], pass_fds=[board.fd], check=True, timeout=60)
    assert (board.in_flight(7), board.pending_tokens(7)) == (3, 30)
    assert board.spent(0, MINUTE)[:3] == (1, 0, 2)
    assert board.news(0) == [(11, 7)] + [(number, number % 9) for number in range(1000)]


def test_relays_see_each_others_queues_by_lane(board):
    one, other = (QueuesOnBoard(board, index) for index in (0, 1))
    lane = ("model", ("gpu", "cpu"))
    one.publish(lane, [1, 0, 3])
    assert other.waiting(lane) == [1, 0, 3]
    assert one.waiting(lane) is None
    one.publish(lane, [0, 0, 0])
    assert other.waiting(lane) is None
