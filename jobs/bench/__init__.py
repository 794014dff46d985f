"""`slurminfer bench engine` and `slurminfer bench comm`."""
