"""What `slurminfer doctor` learns on a machine: its hardware, network, folders and software."""
