"""How long to wait before a relay that has died is started again."""

_FIRST_S = 0.1
_LONGEST_S = 5.0
_STEADY_S = 30.0  # a relay that has lived so long does not die of its start


class Backoff:
    """Waits that double from one death to the next."""

    def __init__(self) -> None:
        self._next_s = _FIRST_S

    def after(self, lived_s: float) -> float:
        """The wait in seconds after a life of `lived_s` seconds."""
        if lived_s >= _STEADY_S:
            self._next_s = _FIRST_S
        wait_s, self._next_s = self._next_s, min(2 * self._next_s, _LONGEST_S)
        return wait_s
