"""What both command lines share: app, options, errors and notes.

How an app is made and run, and how errors and notes are shown.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperGroup

from zoo.errors import ZooError, printable
from zoo.report.text import Format

DEBUG, VERSION = "--debug", "--version"
INTERRUPTED = "interrupted; the same command goes on from where it stopped"
HELP_OPTIONS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}
# The panels of both programs' help, in this order.
START, STAGES, MEMBERS, MACHINES, TRACKING = "start here", "stages", "members", "machines", "tracking"
HOME, DATA = "home", "data"
_STARTED = time.monotonic()

Output = Annotated[
    Format,
    typer.Option("--format", metavar="FORMAT", help="table, markdown, csv (of the first table) or json (of all there is)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="The same as --format json.")]


def complete_entry() -> list[str]:
    """Names for shell completion of an entry."""
    from zoo.entries.load import entry_names

    return entry_names()


def complete_target() -> list[str]:
    """Names for shell completion of a target."""
    from zoo.targets import target_files

    return list(target_files())


def style_of(output: Format, as_json: bool) -> Format:
    """The format that `--format` and `--json` ask for; ZooError where they ask for two."""
    if as_json and output not in (Format.table, Format.json):
        raise ZooError(f"--json and --format {output.value}: give one of them")
    return Format.json if as_json else output


def check_page(page: Path) -> None:
    """ZooError where the name of a page does not say that it is one."""
    if page.suffix not in (".html", ".htm"):
        raise ZooError(f"{page}: a page is HTML; give a name that ends in .html")


def say(text: str) -> None:
    """A note on stderr with the time since start.

    What is going on, apart from results on stdout.
    """
    print(f"[{time.monotonic() - _STARTED:6.1f} s] {printable(text)}", file=sys.stderr, flush=True)


def _tell_version(context: typer.Context, wanted: bool) -> None:
    if wanted:
        import importlib.metadata
        import platform

        program, version = context.find_root().info_name, importlib.metadata.version("preference-zoo")
        print(f"{program} {version}, Python {platform.python_version()}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        VERSION, callback=_tell_version, is_eager=True, expose_value=False, help="Say program, version and Python, and exit."
    ),
]
Debug = Annotated[bool, typer.Option(DEBUG, help="Show the traceback of an error; it may stand anywhere on the line.")]


def new_app(text: str) -> typer.Typer:
    """The app of a program, with `--version`, `--debug` and shell completion."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, context_settings=HELP_OPTIONS)

    @app.callback(help=flowing(text))
    def options(version: Version = False, debug: Debug = False) -> None:
        """Options of every command; `run_app` has taken `--debug` out of the line."""

    return app


def new_group(text: str, kind: type[TyperGroup] = TyperGroup) -> typer.Typer:
    """An app for commands under one word, as `zoo data`; `kind` reads its command line."""
    return typer.Typer(
        cls=kind, help=flowing(text), no_args_is_help=True, pretty_exceptions_enable=False, context_settings=HELP_OPTIONS
    )


def add_commands(app: typer.Typer, commands: Mapping[str, Sequence[Callable[..., None]]]) -> None:
    """Put functions on an app as commands, by panel and in order.

    A function's docstring is the command's help.
    """
    for panel, functions in commands.items():
        for function in functions:
            app.command(function.__name__.strip("_"), help=flowing(function.__doc__ or ""), rich_help_panel=panel)(function)


def flowing(text: str) -> str:
    """A docstring for typer's help.

    Lines of a paragraph joined, so that the terminal breaks them; `[train]` is no markup.
    """
    paragraphs = [" ".join(paragraph.split()) for paragraph in cleandoc(text).split("\n\n")]
    joined = "\n\n".join(paragraphs).replace("\n\nExample:", "\nExample:").replace("\nExample:", "\n\nExample:", 1)
    return joined.replace("[", r"\[")


def run_app(app: typer.Typer, program: str) -> None:
    """Run an app on this process's arguments.

    What users cause becomes one line and an exit code. Ends the process.
    """
    open_standard_streams()
    arguments = [argument for argument in sys.argv[1:] if argument != DEBUG]
    command = typer.main.get_command(app)
    _tell_version_everywhere(command)
    _shorten_types(command)
    if not arguments or {"-h", "--help"} & set(arguments):
        _readable_help()
    with _one_line_errors(debug=DEBUG in sys.argv):
        code = command.main(arguments, prog_name=program, standalone_mode=False)
        if code == 130:  # typer's code for Ctrl-C
            raise KeyboardInterrupt
        sys.exit(code)


def open_standard_streams() -> None:
    """Put the null device where standard input, output or errors are closed.

    Else the next file that is opened takes the place, and gets what is printed.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


@contextmanager
def _one_line_errors(*, debug: bool) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        told = _told(error)
        if told is None or (debug and not isinstance(error, typer.TyperException)):
            raise
        text, code = told
        if text:
            print(f"error: {printable(text)}", file=sys.stderr)
        sys.exit(code)


def _told(error: Exception) -> tuple[str, int] | None:
    """An error's line for the user and its exit code; None for those that no user causes. An empty line: help was shown."""
    if isinstance(error, ZooError):
        return str(error), error.exit_code
    if isinstance(error, typer.TyperException):
        text = " ".join(error.format_message().split()).rstrip(".")
        context = getattr(error, "ctx", None)
        more = f"; see `{context.command_path} --help`" if context is not None and text else ""
        return text[:1].lower() + text[1:] + more, error.exit_code
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}; check the path, its permissions and free space", 2
    return None


def _tell_version_everywhere(program: Any) -> None:
    """`--version` on every command below a program that has no option of that name; only the program's help shows it."""
    (option,) = (parameter for parameter in program.params if VERSION in parameter.opts)
    hidden = copy(option)
    hidden.hidden = True
    for command in _below(program):
        if all(VERSION not in parameter.opts for parameter in command.params):
            command.params.append(hidden)


def _below(group: Any) -> Iterator[Any]:
    """Every command and group under a group."""
    for child in getattr(group, "commands", {}).values():
        yield child
        yield from _below(child)


def _shorten_types(program: Any) -> None:
    """Types in help that leave room for the options' names on 80 columns.

    Typer prints one for every option without a metavar: for flags too, which have no value, and `<int range>` before a range.
    """
    for command in (program, *_below(program)):
        for parameter in (*command.params, command.get_help_option(typer.Context(command, **HELP_OPTIONS))):
            if getattr(parameter, "is_bool_flag", False):
                parameter.metavar = ""
            elif parameter.param_type_name == "option" and parameter.type_descriptor.is_ranged:
                parameter.metavar = f"<{parameter.type_descriptor.ranged_type_name}>"


def _readable_help() -> None:
    """Colours of help that can be read on light and dark terminals; typer has no setting but these names of its module."""
    from typer import rich_utils

    rich_utils.STYLE_TYPES = rich_utils.STYLE_USAGE = ""
    rich_utils.STYLE_HELPTEXT = rich_utils.STYLE_REQUIRED_LONG = ""
    rich_utils.STYLE_OPTION = rich_utils.STYLE_SWITCH = rich_utils.STYLE_COMMANDS_TABLE_FIRST_COLUMN = "bold color(30)"
