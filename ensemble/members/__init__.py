"""Members: score tables gathered, vetted and aligned as candidates."""
