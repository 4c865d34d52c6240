"""The score stage: vLLM engine processes under a supervisor, with chunks on disk."""
