"""The one HTTP endpoint of a deployment: finds the workers through the run directory, chooses, streams through."""
