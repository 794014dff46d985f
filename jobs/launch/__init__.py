"""Where jobs run: Slurm or this machine, behind one `Launcher`."""
