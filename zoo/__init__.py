"""From battles to scored, quantized models. See README.md for the file tree."""
