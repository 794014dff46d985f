"""`slurminfer tunnel`: a local port that leads to a deployment's router, wherever that is now."""
