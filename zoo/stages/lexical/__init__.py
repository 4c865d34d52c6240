"""The lexical stages: TF-IDF and length features with logistic regressions, what a language model has to beat."""
