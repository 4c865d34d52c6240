"""The quantize stage: 4-bit AWQ by autoawq's format or by llm-compressor."""
