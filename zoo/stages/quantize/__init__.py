"""The quantize stage: AWQ by one of three backends, or a form with 8 bit activations."""
