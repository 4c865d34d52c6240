"""Reports for people: text tables, figures, leaderboard, ladder and folds."""
