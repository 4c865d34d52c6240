"""What both command lines share: app, options, errors and notes.

How an app is made and run, and how errors and notes are shown.
"""

from __future__ import annotations

import sys

import typer

from zoo.errors import ZooError

DEBUG = "--debug"


def new_app(text: str) -> typer.Typer:
    """A typer app without tracebacks of its own and with `--debug`."""
    app = typer.Typer(help=text, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

    @app.callback()
    def options(debug: bool = typer.Option(False, DEBUG, help="Show the traceback of an error.")) -> None:
        """Options of every command; `--debug` is read before parsing, so it may stand anywhere before the command."""

    options.__doc__ = text
    return app


def run_app(app: typer.Typer, debug: bool) -> None:
    """Run an app; errors meant for users become one line and an exit code."""
    try:
        app()
    except ZooError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if debug:
            raise
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror or error}; check the path, its permissions and free space", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("error: interrupted; the same command goes on from where it stopped", file=sys.stderr)
        sys.exit(130)
