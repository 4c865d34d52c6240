"""The score stage: engine processes under a supervisor, with chunks on disk."""
