"""A plan as a bundle: what is uploaded to run it in a notebook without a network."""
