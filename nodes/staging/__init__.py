"""What a worker keeps on its node's own disk: copies of weights while workers use them, and caches of compiled code."""
