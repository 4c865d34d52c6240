"""The stage that quantizes to 4-bit AWQ, by autoawq's format or by llm-compressor."""
