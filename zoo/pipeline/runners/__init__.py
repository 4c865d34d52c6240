"""Where work runs: this host, a Ray cluster or a Slurm array.

It is the same processes and files everywhere.
"""
