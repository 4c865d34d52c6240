"""Pools: linear, log and logistic blends, out-of-fold losses, gates and baselines."""
