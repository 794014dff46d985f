"""Which CPUs, memory and GPUs of its node a worker and its ranks get."""
