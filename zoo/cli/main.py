"""The `zoo` app: every command by panel, and the entry point.

Commands come in the order in which a newcomer needs them.
"""

from __future__ import annotations

import sys

# Each module puts its commands on the app when it is imported.
from zoo.cli import entries, experiments, stages, tracking  # noqa: F401
from zoo.cli.app import app
from zoo.cli.base import DEBUG, run_app


def main() -> None:
    """Entry point of the `zoo` command."""
    run_app(app, DEBUG in sys.argv)
