"""Finished stages and ensemble builds as MLflow runs, registered models with aliases, and MLflow's own UI."""
