"""The search for a plan: affordable subsets, coverage, and an out-of-fold rehearsal."""
