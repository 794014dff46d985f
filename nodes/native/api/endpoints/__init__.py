"""One file for each path that computes something, and what these have in common."""
