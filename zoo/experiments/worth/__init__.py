"""What a source of training data is worth: trainings with and without it, side by side."""

from zoo.experiments.worth.measure import measure_worth
from zoo.experiments.worth.recipe import WorthRecipe, load_worth

__all__ = ["WorthRecipe", "load_worth", "measure_worth"]
