"""The zoo's entries: one TOML file a model, found, read, overridden and registered."""
