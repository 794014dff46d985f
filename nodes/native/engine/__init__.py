"""What schedules: requests, the step loop, sampling, the prefix cache. Start reading at core.py."""
