"""What is to be done about a fleet: pure functions of what is wanted, what is seen, and the time."""
