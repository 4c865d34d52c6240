"""Battles: read, checked, split into folds, described, and generated for demos."""
