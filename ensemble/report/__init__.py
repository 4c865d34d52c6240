"""Plans, frontiers and submissions for people: text, HTML, figures, log loss."""
