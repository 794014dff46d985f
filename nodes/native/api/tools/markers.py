"""Markers, such as `<tool_call>`, in text that grows."""

from collections.abc import Sequence


def first_marker(text: str, markers: Sequence[str]) -> tuple[int, str] | None:
    """The place of the first marker in `text`, and the marker; of two at one place the longer one."""
    found = [(place, -len(marker), marker) for marker in markers if (place := text.find(marker)) >= 0]
    if not found:
        return None
    place, _, marker = min(found)
    return place, marker


def may_begin(text: str, markers: Sequence[str]) -> int:
    """Length of the longest end of `text` that begins one of the markers, and is none yet."""
    longest = max((len(marker) for marker in markers), default=1) - 1
    for length in range(min(len(text), longest), 0, -1):
        end = text[-length:]
        if any(marker.startswith(end) for marker in markers):
            return length
    return 0


def marker_at(text: str, markers: Sequence[str]) -> str | None:
    """The marker with which `text` begins; an empty string if that is not certain yet, None if there is none."""
    if any(len(text) < len(marker) and marker.startswith(text) for marker in markers):
        return ""
    return max((marker for marker in markers if text.startswith(marker)), key=len, default=None)
