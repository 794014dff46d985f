"""What every part of slurminfer speaks: spec, errors, run directory, records, subprocesses. Imports nothing of ours."""
