"""The picture of throughput, and its line in a terminal."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from slurminfer.jobs.batch.report.history import Span
from slurminfer.jobs.batch.report.picture import sparkline, svg

NAMESPACE = "{http://www.w3.org/2000/svg}"


def drawn(*spans, title="out.jsonl"):
    return ElementTree.fromstring(svg(title, spans, clock=lambda at: f"t{at:.0f}"))


def parts(root, tag, kind):
    return [each for each in root.iter(NAMESPACE + tag) if each.get("class") == kind]


def spans(*tokens, **fields):
    return [
        Span(until=10.0 * (n + 1), seconds=10.0, rows=1, completion_tokens=t, **fields) for n, t in enumerate(tokens)
    ]


def test_the_curve_is_as_high_as_the_throughput():
    [line] = parts(drawn(*spans(0, 500, 1000)), "path", "line")
    heights = [float(number) for number in re.findall(r"V([\d.]+)", line.get("d", ""))]
    bottom, middle, top = heights
    assert bottom - middle == pytest.approx(middle - top) and top < middle < bottom
    assert top == 66.0, "100 tokens/s are the top of the scale"


def test_a_title_is_text_whatever_it_says():
    root = drawn(*spans(5), title='</text><script>alert("1")</script>&')
    assert [each.text for each in parts(root, "text", "title")] == ['</text><script>alert("1")</script>&']
    assert not list(root.iter(NAMESPACE + "script"))


def test_failures_and_starts_of_drivers_are_marked():
    found = spans(10, 10, 10)
    found[1] = Span(until=20.0, seconds=10.0, rows=4, failed=2, completion_tokens=1, is_first=True)
    root = drawn(*found)
    [bar] = parts(root, "rect", "fail")
    [start] = parts(root, "line", "start")
    assert start.get("x1") == bar.get("x")
    assert float(bar.get("height", 0)) == pytest.approx((320 - 66 - 40) / 2)
    assert "2 of 4 rows failed" in ElementTree.tostring(bar, encoding="unicode")


def test_without_tokens_rows_are_drawn():
    root = drawn(*spans(0, 0))
    assert "rows per second" in "".join(root.itertext())


def test_nothing_lies_outside_of_the_picture_at_any_scale():
    for tokens in (0, 1e-6, 3, 7.7e9):
        for seconds in (0.002, 10.0, 3e6):
            root = drawn(Span(until=1.7e9, seconds=seconds, rows=1, completion_tokens=tokens))
            for each in root.iter():
                for name in ("x", "x1", "x2", "y", "y1", "y2"):
                    if (value := each.get(name)) is not None:
                        assert 0 <= float(value) <= (880 if name[0] == "x" else 320)


def test_the_line_of_blocks_shows_gaps_and_is_as_short_as_it_has_to_be():
    assert sparkline([0, 1, 2, 4]) == " ▃▅█" and sparkline([]) == "" and sparkline([0, 0]) == "  "
    assert sparkline([8.0] * 600 + [0.0] * 600, width=10) == "█████     "
