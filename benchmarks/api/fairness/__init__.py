"""How much one client's stream suffers from what another client asks for, beside vLLM on the same machine."""

from .measure import measure

__all__ = ["measure"]
