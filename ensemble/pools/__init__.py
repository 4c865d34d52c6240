"""Pools: linear, log and logistic blends fitted exactly, with gates and baselines."""
