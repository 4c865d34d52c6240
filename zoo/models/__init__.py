"""Models as arithmetic: sizes, memory and prompts, with no weights loaded."""
