"""From an entry to stage requests, and from a request to an artifact: chains, folds, and one process a stage."""
