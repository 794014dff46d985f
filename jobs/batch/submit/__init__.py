"""A batch's driver as a Slurm job that may be requeued, and what the ledger's folder keeps of such jobs."""
