"""How long a worker has said nothing: pure, with times that the test gives."""

from dataclasses import dataclass

from slurminfer.router.relay.workers.silence import LEAST_S, Silence


@dataclass
class Waiting:
    heard_at: float = 0.0
    heard: bool = False
    is_paused: bool = False


def test_a_worker_without_requests_is_not_silent():
    assert Silence(0.0).listen([], 100.0) == 0.0


def test_silence_begins_with_the_first_request_that_waits():
    silence = Silence(0.0)
    assert silence.listen([Waiting(95.0), Waiting(98.0)], 100.0) == 5.0


def test_a_byte_of_any_request_ends_it():
    silence, other = Silence(0.0), Waiting(0.0, heard=True)
    assert silence.listen([Waiting(0.0), other], 100.0) == 0.0
    assert (other.heard, other.heard_at) == (False, 100.0)
    assert silence.listen([Waiting(0.0), other], 103.0) == 3.0


def test_what_a_slow_client_does_not_read_is_no_silence():
    assert Silence(0.0).listen([Waiting(0.0, is_paused=True)], 100.0) == 0.0


def test_the_usual_time_and_the_prompts_that_wait_explain_silence():
    silence = Silence(0.0)
    assert not silence.is_new(LEAST_S - 0.1, 0.0)
    assert not silence.is_new(11.0, 3.0)
    assert silence.is_new(12.0, 3.0)
    silence.ended(10.0)
    silence.ended(10.0)
    assert not silence.is_new(39.0, 0.0)
    assert silence.is_new(40.0, 0.0)


def test_one_silence_is_told_less_and_less_often():
    silence = Silence(0.0)
    told = [seconds for seconds in range(100) if silence.is_new(float(seconds), 0.0)]
    assert told == [5, 10, 20, 40, 80]
    assert [silence.is_new(seconds, 0.0) for seconds in (0.0, 5.0)] == [False, True], "another silence"
