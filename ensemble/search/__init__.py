"""The search for a plan: affordable subsets, coverage, and an out-of-fold rehearsal.

`build.py` tells it in order: pose the problem (problem, prices), propose candidates (proposals, from subsets),
judge them (judging, with coverage), choose one at the budget and refine its pool (decide), rehearse all of that without each
fold and confirm the choice (rehearse, by final fits from fitting), let a study challenge it (challenge; study, over space), assemble the plan (assemble). `frontier.py` decides at many
budgets.
"""
