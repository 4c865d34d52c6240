"""Pools: linear, log and logistic blends fitted exactly, judged out of fold, with gates and baselines."""
