"""Score tables and what is computed from them: log loss, its parts, and the ladder from base model to engine."""
