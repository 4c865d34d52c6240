"""Budgets: durations, margins, prices of members, and the schedule on a target."""
