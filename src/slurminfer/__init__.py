"""LLM inference on Slurm clusters, GPU and pure CPU: HTTP endpoints, batch generation, readable jobs."""
