"""This machine's rates as a target: matrix products, memory, host to device, disk."""
