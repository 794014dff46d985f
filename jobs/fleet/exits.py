"""The exit statuses of `python -m slurminfer.jobs.fleet`, for the program that has started it."""

TOLD_TO_END = 0  # by a signal; a standby: because a router serves, beside which another controller runs
COULD_NOT_BEGIN = 1
DEPLOYMENT_STOPPED = 3  # nobody needs a controller any more
