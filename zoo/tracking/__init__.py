"""Tracking with MLflow: stages and builds as runs, models, aliases, and the UI."""
