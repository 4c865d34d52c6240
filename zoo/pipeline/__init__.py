"""The pipeline: an entry becomes stage requests, a request becomes an artifact."""
