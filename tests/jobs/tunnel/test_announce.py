"""What `endpoint --follow` writes, and when it ends."""

import json
import os

from slurminfer.jobs.tunnel.announce import Output, announce_changes, input_has_ended
from slurminfer.jobs.tunnel.view import EndpointView


def test_each_change_is_one_line_of_json():
    here, moved = (EndpointView(name="cpu", url=f"http://n{n}:1", run_directory="/r") for n in (1, 2))
    looks = iter([here, here, moved, moved, here])
    over = iter([False, False, False, False, True])
    lines: list[str] = []
    announce_changes(lambda: next(looks), lines.append, lambda: next(over))
    assert [json.loads(line)["url"] for line in lines] == ["http://n1:1", "http://n2:1", "http://n1:1"]
    assert not any("\n" in line for line in lines)


def test_input_ends_when_nobody_can_write_any_more():
    reading, writing = os.pipe()
    assert not input_has_ended(reading, 0.0)
    os.write(writing, b"a key was pressed")
    assert not input_has_ended(reading, 0.0)
    os.close(writing)
    assert input_has_ended(reading, 60.0)
    os.close(reading)


def test_lines_go_out_at_once():
    reading, writing = os.pipe()
    Output(writing).line("one")
    assert os.read(reading, 100) == b"one\n"
    os.close(reading)
    os.close(writing)
