"""`zoo leaderboard`, `ui`, `promote` and `sync`: what was scored, and where MLflow has it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from zoo.cli.app import Name
from zoo.cli.base import AsJson, Output, complete_target, say, style_of
from zoo.report.text import Format, show


class Sort(StrEnum):
    """As zoo.report.leaderboard.SortBy has them; help imports no numpy."""

    loss = "loss"
    acc = "acc"
    cost = "cost"
    name = "name"
    made = "made"


def leaderboard(
    data: Annotated[
        str | None, typer.Option("--data", help="One data set alone: its file's name, or how its digest begins.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", help="What each costs on this machine, measured or forecast.", autocompletion=complete_target),
    ] = None,
    top: Annotated[int | None, typer.Option("--top", min=1, help="So many of each group of members alone.")] = None,
    sort: Annotated[Sort, typer.Option("--sort", help="What comes first within a group.")] = Sort.loss,
    everything: Annotated[
        bool, typer.Option("--all", help="Also tables that others of their name replace, and which ones.")
    ] = False,
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Every scored member, data set by data set.

    Log loss with its standard error, the paired difference to the best on the rows that all have, cost, memory and age: of
    each member the table that a build would take. Losses on different rows do not compare: they are in groups of their own.

    Example: zoo leaderboard

    Example: zoo leaderboard --data train.csv --target t4x2 --top 10

    Example: zoo leaderboard --sort cost --all --format markdown
    """
    from zoo.report.leaderboard import SortBy
    from zoo.report.leaderboard_page import leaderboard_page, leaderboard_table
    from zoo.tracking.board import board

    style = style_of(output, as_json)
    rows = board(data=data, target=target, top=top, sort=SortBy(sort.value), superseded=everything)
    page, records = leaderboard_page(rows)
    show([leaderboard_table(rows)] if style is Format.csv else page, style, data=records)


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
