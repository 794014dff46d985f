"""`slurminfer serve`, `status`, `logs` and `stop`: deployments and what a person sees of them."""
