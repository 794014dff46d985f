"""LLM inference on Slurm clusters, GPU and pure CPU: HTTP endpoints, batch generation, readable jobs."""

__version__ = "0.1.0"
