"""Plans, frontiers and submissions for people: text, one HTML page, and log loss beside baselines."""
