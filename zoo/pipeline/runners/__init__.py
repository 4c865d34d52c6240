"""Where work runs: this host, a Ray cluster or a Slurm array; the same processes and files everywhere."""
