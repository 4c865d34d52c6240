"""Experiments: chains and recipes run to their end and mirrored to MLflow, alone or side by side."""
