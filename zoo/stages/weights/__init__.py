"""The stages that move weights: fetch the base, and merge adapters into it."""
