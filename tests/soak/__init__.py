"""The soak: hours of kills, faults and crowds that no test run has the time for. `python -m tests.soak --help`."""
