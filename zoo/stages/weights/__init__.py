"""Stages that move weights: fetching the base, and merging adapters into it."""
