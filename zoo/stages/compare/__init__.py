"""The stages that compare forms of a model in transformers."""
