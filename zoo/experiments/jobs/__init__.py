"""Jobs: stages of many folds and entries as tasks, which workers on several hosts run."""
