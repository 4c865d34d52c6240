"""Score tables and their metrics: log loss, its parts, folds and the ladder."""
