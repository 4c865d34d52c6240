"""Members: score tables gathered, vetted and aligned into one array of candidates."""
