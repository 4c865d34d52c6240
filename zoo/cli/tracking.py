"""`zoo leaderboard`, `ui`, `promote` and `sync`: what was scored, and where MLflow has it."""

from __future__ import annotations

from typing import Annotated

import typer

from zoo.cli.app import Format, Name, app


@app.command()
def leaderboard(output: Annotated[Format, typer.Option("--format", help="table, markdown or json.")] = Format.table) -> None:
    """Every scored member.

    Log loss with its standard error, cost, memory and age, the best first.
    """
    from zoo.report.leaderboard import leaderboard as rows_of
    from zoo.report.leaderboard import render
    from zoo.settings import store_folder

    typer.echo(render(rows_of(store_folder()), output.value))


@app.command()
def ui(port: Annotated[int, typer.Option("--port", help="Port on loopback; the next free one if it is taken.")] = 5000) -> None:
    """Open MLflow on 127.0.0.1 with the runs of this store. Ctrl-C stops it."""
    from zoo.tracking.ui import serve

    serve(port)


@app.command()
def promote(
    name: Name,
    version: Annotated[str | None, typer.Option("--version", help="Registered version; default: the one scored last.")] = None,
    alias: Annotated[str, typer.Option("--alias", help="Another alias than champion.")] = "champion",
) -> None:
    """Make an entry's scored checkpoint its champion.

    People and builds take members by this alias.
    """
    from zoo.tracking.promote import promote as give_alias

    typer.echo(f"{name} version {give_alias(name, version=version, alias=alias)} is now {alias}")


@app.command()
def sync() -> None:
    """Mirror finished stages to MLflow that a lost connection left out. Twice doubles nothing."""
    from zoo.settings import store_folder
    from zoo.tracking.sync import sync as sync_store

    typer.echo(f"{sync_store(store_folder())} stages mirrored")
