"""Prediction within a deadline: jobs of the schedule as processes, and a submission that is whole at every moment."""
