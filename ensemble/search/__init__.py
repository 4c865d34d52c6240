"""The search for a plan: affordable subsets, coverage, rehearsal, and a study beside it.

`build.py` tells it in order: pose the problem (problem, prices), propose candidates (proposals, from subsets), judge them
(judging, with coverage), choose one at the budget and refine its pool (decide), rehearse all of that without each fold and
confirm the choice (rehearse, contest, by final fits from fitting), let a study challenge it (challenge; study, which draws from
space and keeps its trials in study_file), assemble the plan (assemble). `frontier.py` decides at many budgets.
"""
