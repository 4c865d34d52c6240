"""The lexical stages: TF-IDF and length features, what a language model has to beat."""
