"""`zoo leaderboard`, `ui`, `promote` and `sync`: what was scored, and where MLflow has it."""

from __future__ import annotations

from typing import Annotated

import typer

from zoo.cli.app import Name
from zoo.cli.base import AsJson, Output, say, style_of
from zoo.report.text import Format, show


def leaderboard(
    superseded: Annotated[
        bool, typer.Option("--superseded", help="Also tables that others of their name replace, and which ones.")
    ] = False,
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Every scored member.

    Log loss with its standard error, cost, memory and age: of each member the table that a build would take. Losses on
    different rows do not compare: members with the most rows come first, the best of them first.

    Example: zoo leaderboard --format markdown

    Example: zoo leaderboard --superseded
    """
    from zoo.report.leaderboard import leaderboard as rows_of
    from zoo.report.leaderboard import leaderboard_page
    from zoo.settings import store_folder

    style = style_of(output, as_json)
    page, records = leaderboard_page(rows_of(store_folder(), superseded=superseded))
    show(page, style, data=records)


def ui(
    port: Annotated[
        int, typer.Option("--port", min=1, max=65535, help="Port on loopback; the next free one if it is taken.")
    ] = 5000,
) -> None:
    """Open MLflow on 127.0.0.1 with the runs of this store. Ctrl-C stops it.

    Example: zoo ui --port 5001
    """
    from zoo.tracking.ui import serve

    serve(port, say=say)


def promote(
    name: Name,
    version: Annotated[str | None, typer.Option("--version", help="Registered version; default: the one scored last.")] = None,
    alias: Annotated[str, typer.Option("--alias", help="Another alias than champion.")] = "champion",
) -> None:
    """Make an entry's scored checkpoint its champion.

    People and builds take members by this alias.

    Example: zoo promote smollm2-135m
    """
    from zoo.tracking.promote import promote as give_alias

    typer.echo(f"{name} version {give_alias(name, version=version, alias=alias)} is now {alias}")


def sync() -> None:
    """Mirror to MLflow the stages, builds and predictions that it lacks; again adds nothing.

    Example: zoo sync
    """
    from zoo.settings import store_folder
    from zoo.tracking.sync import sync as sync_store

    typer.echo(f"{sync_store(store_folder())} mirrored to MLflow")
