"""Models as arithmetic: sizes, memory, and how a battle becomes token ids. Nothing is loaded."""
