"""Programs that an engine's own Python runs, by their path: they import nothing of slurminfer's."""
