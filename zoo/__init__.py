"""The model zoo: battles become trained, quantized and scored models."""
