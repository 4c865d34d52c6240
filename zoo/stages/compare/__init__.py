"""Stages that compare forms of a model in transformers: one trained model, or a whole ladder."""
