"""What scoring takes: a cost model fitted to measured runs, its interval, forecasts, and prices in hours."""
