"""Reports on plans and submissions: text, an HTML page, log loss beside baselines."""
