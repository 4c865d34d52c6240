"""The stage that scores battles with vLLM: chunks on disk, engine processes, and a supervisor over them."""
