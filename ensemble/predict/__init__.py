"""Prediction within a deadline: jobs as processes, and a submission that is always whole."""
