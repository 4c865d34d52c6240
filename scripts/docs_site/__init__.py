"""The site of the documents: what mkdocs.yml asks of this project's own code."""
