"""What runs inside vLLM's processes: the engine's settings, our workers, and the plugin that changes models."""
