"""The energy that a worker draws, as far as its node lets an ordinary user read it."""
