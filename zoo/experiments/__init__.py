"""Experiments: chains and recipes, run alone or side by side and logged to MLflow."""
