"""Jobs: the stages of many folds and entries as tasks, which workers on several hosts claim and run."""
