"""Answers of a model to prompts, sampled by vLLM, turn by turn."""
