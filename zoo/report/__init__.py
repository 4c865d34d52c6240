"""What people look at: text tables, figures, the leaderboard, ladders and folds."""
