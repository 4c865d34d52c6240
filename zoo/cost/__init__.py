"""The cost of scoring: measured, fitted, forecast, and priced in hours."""
