"""The search for a plan: affordable subsets, coverage, judging out of fold, and the rehearsal of the whole build."""
