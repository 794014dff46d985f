"""The exit statuses of `python -m slurminfer.router`, for the program that has started it."""

STOPPED = 0  # by a signal, or its job is cancelled
COULD_NOT_SERVE = 1
REPLACED = 3  # another router serves the deployment
REQUEUE = 75  # its time is over, and no other router serves: as of EX_TEMPFAIL, try again
