"""From score tables to a plan and predictions within a time budget. See README.md for the file tree."""
