"""The stages that make training data: pairs from logs, and judges' verdicts as human votes."""
