"""The folder beside a batch's output that says what is done: parameters, plan, claims, segments, sealed shards."""
