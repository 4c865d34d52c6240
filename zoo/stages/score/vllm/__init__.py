"""What runs inside vLLM's processes: engine settings, workers, and a plugin."""
