"""The ensembler: score tables become a plan, and predictions within a time budget."""
