"""The commands of `slurminfer batch`, one file each, for a person at a terminal or a job's log."""
