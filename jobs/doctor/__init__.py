"""`slurminfer doctor`: what a cluster gives to jobs, learned from one tiny job for each partition."""
