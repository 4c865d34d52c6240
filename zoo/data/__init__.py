"""Battles: reading and checking files of them, folds, votes, statistics, and a generator for demos and tests."""
