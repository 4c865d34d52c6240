"""Prediction within a deadline: jobs as processes, and an always valid submission."""
