"""Budgets: seconds as people write them, margins, prices of members, and their schedule on a target's devices."""
