"""A study of training settings for people: tables, judgement, pictures, page."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.errors import amount
from zoo.report.drawing import BLUE, FAINT, GREY, INK, ORANGE, entitle, one_panel, round_ticks, styled
from zoo.report.duration import format_seconds
from zoo.report.sections import Drawn, Section, sections_html
from zoo.report.study_figures import best_so_far, importance_bars, legend_below, near_the_best
from zoo.report.text import Cell, Column, Page, Table, lowest
from zoo.scores.tuned import Setting, TriedSettings, TuneReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OWN = "as the entry is"
LOSS_AXIS = "held-out log loss, nats"
LEAST_SPAN = 4  # trials with different values of a setting, for a picture of it


def settings_text(settings: Mapping[str, Setting]) -> str:
    """Settings that are not the entry's on one line, as [train] spells them."""
    return ", ".join(f"{name} {_value(value)}" for name, value in settings.items()) or OWN


def _value(value: Setting) -> str:
    return json.dumps(value) if isinstance(value, bool) else f"{value:.4g}"


def tune_page(report: TuneReport, notes: Sequence[str]) -> Page:
    """Trials, the judgement, what mattered, and how to go on."""
    page: list[str | Table] = [f"study {report.study}: {_counts(report)}", "", trials_table(report), "", *judgement(report)]
    if report.choosing is not None:
        page += ["", compared_table(report)]
    if report.importance:
        page += ["", importance_table(report)]
    return [*page, "", *notes]


def _counts(report: TuneReport) -> str:
    states = [trial.state for trial in report.trials]
    told = [f"{states.count(state)} {state}" for state in ("pruned", "failed", "unfinished") if state in states]
    ended = "the budget" if report.ended_by == "budget" else "their number"
    return (
        f"{amount(len(states), 'trial')}{''.join(f', {one}' for one in told)}; "
        f"{format_seconds(report.spent_seconds)} in all, ended by {ended}"
    )


def trials_table(report: TuneReport) -> Table:
    """A line a trial, the best first.

    Those that were pruned come last, since their losses are of an unfinished training.
    """
    shown = sorted(report.trials, key=lambda t: (t.state != "complete", t.log_loss is None, t.log_loss or 0.0, t.number))
    rows: list[list[Cell]] = [
        [
            trial.number,
            trial.log_loss,
            trial.state,
            _where(trial),
            trial.seconds,
            settings_text(trial.settings),
            trial.why or "-",
        ]
        for trial in shown
    ]
    columns = [
        Column("trial"),
        Column("log loss", "log_loss", ".4f"),
        Column("state"),
        Column("at", "share_of_training", "", drop=2),
        Column("took", "seconds", format_seconds, drop=1),
        Column("settings that differ", "settings", prose=True),
        Column("why", prose=True, drop=3),
    ]
    best = lowest([trial.log_loss if trial.state == "complete" else None for trial in shown])
    return Table(columns, rows, best)


def _where(trial: TriedSettings) -> str:
    return f"{trial.curve[-1][0]:.0%}" if trial.curve else "-"


def judgement(report: TuneReport) -> list[str]:
    """What the study says of the best settings, and on which rows."""
    choose = f"{amount(report.rows_to_choose, 'row')} of {amount(report.prompts_to_choose, 'prompt')}"
    where = f"fold {report.fold} of {report.n_folds} of {report.data}"
    if report.choosing is None or report.judging is None:
        tried = sum(trial.state in ("complete", "pruned") for trial in report.trials) - 1
        told = f"No other settings were better than the entry's, of {tried} tried, on {choose} ({where})."
        return [told, *_no_better_than_guessing(report, report.own.log_loss)]
    away, here = report.judging, report.choosing
    gain = f"{away.difference:+.4f} ± {away.error:.4f}"
    verdict = (
        "better there by more than twice the error"
        if report.is_told
        else "better there, by less than twice the error: more rows would tell"
        if report.is_better
        else "not better there: its lead did not carry over"
    )
    ended = sum(trial.state in ("complete", "pruned") for trial in report.trials)
    lines = [
        f"Trial {report.best} was chosen by its log loss on {choose} ({where}), on which the best of "
        f"{amount(ended, 'trial')} looks better than it is: {here.difference:+.4f} ± {here.error:.4f} against the "
        "entry's own settings.",
        f"Judged on {amount(away.rows, 'other row')} of {amount(away.prompts, 'other prompt')} of the same fold, "
        f"which chose nothing: {gain}, {verdict}.",
    ]
    lines += _no_better_than_guessing(report, away.best)
    if report.judged > 1:
        lines.append(f"{report.judged} different winners were judged on these rows so far: each makes the last less certain.")
    return lines


def _no_better_than_guessing(report: TuneReport, loss: float | None) -> list[str]:
    """A line where even the best has learned nothing: then a difference says little of settings."""
    if loss is None or loss < report.guessing:
        return []
    told = f"A log loss of {loss:.4f} is no better than guessing ({report.guessing:.4f})"
    return [f"{told}: train on more rows before settings are tuned."]


def compared_table(report: TuneReport) -> Table:
    """Log loss of the entry's own settings and of the best.

    On the rows that chose, and on those that judge.
    """
    columns = [
        Column("held-out rows", "part"),
        Column("rows", form=",d", drop=2),
        Column("prompts", form=",d", drop=3),
        Column(OWN, "own_log_loss", ".4f"),
        Column(f"trial {report.best}", "best_log_loss", ".4f"),
        Column("difference", form="+.4f"),
        Column("se by prompts", "difference_se", ".4f"),
    ]
    parts = (("that chose it", report.choosing), ("of other prompts", report.judging))
    rows: list[list[Cell]] = [
        [name, part.rows, part.prompts, part.own, part.best, part.difference, part.error] for name, part in parts if part
    ]
    return Table(columns, rows)


def importance_table(report: TuneReport) -> Table:
    """What mattered among the trials that ran to their end, the most first."""
    columns = [Column("what mattered", "setting"), Column("share of the variance", "share", ".0%")]
    return Table(columns, [[name, share] for name, share in report.importance.items()])


def set_options(settings: Mapping[str, Setting]) -> str:
    """Settings as options of the commands that run an entry's stages."""
    return " ".join(f"--set train.{name}={shlex.quote(json.dumps(value))}" for name, value in settings.items())


def run_command(name: str, data: Path, given: Sequence[str], settings: Mapping[str, Setting]) -> str:
    """The command that trains with a study's settings.

    They come after those that the study's own command was `given` by --set.
    """
    own = [f"--set {shlex.quote(one)}" for one in given]
    return " ".join(["zoo run", name, "--data", shlex.quote(str(data)), *own, set_options(settings)])


# --- pictures ---------------------------------------------------------------------------------------------------------------


def pictures(report: TuneReport) -> dict[str, Drawn]:
    """Figures by the name of their file, those that have something to show."""
    found = {"tune-history.png": history_figure(report), "tune-curves.png": curves_figure(report)}
    if names := _varied(report):
        found["tune-settings.png"] = settings_figure(report, names)
    if report.importance:
        found["tune-importance.png"] = importance_figure(report)
    said = {
        "tune-history.png": "Log loss of each trial in the order in which they ran, and the lowest so far.",
        "tune-curves.png": "Held-out log loss of each trial over its training; those that were pruned end early.",
        "tune-settings.png": "Log loss of each trial against each setting that was drawn.",
        "tune-importance.png": "Shares of the variance of log loss that each setting explains.",
    }
    return {name: Drawn(figure, said[name]) for name, figure in found.items()}


def _of(report: TuneReport) -> str:
    return (
        f"{report.entry}, fold {report.fold} of {report.n_folds} of {report.data}, {report.rows_to_choose:,} rows to choose by"
    )


def _ended(report: TuneReport) -> list[TriedSettings]:
    return [trial for trial in report.trials if trial.state == "complete" and trial.log_loss is not None]


@styled
def history_figure(report: TuneReport) -> Figure:
    """Trials in their order: log loss at the end, or where a trial was pruned."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = one_panel(8, 5)
    ended = _ended(report)
    pruned = [trial for trial in report.trials if trial.state == "pruned" and trial.log_loss is not None]
    loss = np.array([trial.log_loss for trial in ended], dtype=float)
    _dots(axes, [float(trial.number) for trial in ended], ended)
    if pruned:
        where = [t.log_loss or np.nan for t in pruned]
        axes.plot([t.number for t in pruned], where, "x", color=GREY, label="pruned, where it was ended")
    best_so_far(axes, np.array([trial.number for trial in ended]), loss)
    axes.set(xlabel="trial", ylabel=LOSS_AXIS)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    near_the_best(axes, np.array([*loss, *(trial.log_loss or 0.0 for trial in pruned)]))
    legend_below(axes)
    entitle(figure, "How the study went", _of(report))
    return figure


def _dots(axes: Axes, x: Sequence[float], trials: Sequence[TriedSettings]) -> None:
    """Trials that ran to their end at `x`: the entry as it is is a triangle."""
    kinds = ((False, "o", BLUE, "drawn by Optuna"), (True, "^", ORANGE, OWN))
    for own, marker, colour, label in kinds:
        places = [place for place, trial in enumerate(trials) if trial.is_default is own]
        losses = [trials[place].log_loss or np.nan for place in places]
        axes.plot([x[place] for place in places], losses, marker, color=colour, markersize=6, label=label, zorder=3)


@styled
def curves_figure(report: TuneReport) -> Figure:
    """Held-out log loss over each training, by the share of it that had run."""
    figure, axes = one_panel(8, 5)
    lines: dict[str, dict[str, Any]] = {
        "pruned": {"color": GREY, "linestyle": ":", "marker": "x", "linewidth": 1},
        "complete": {"color": FAINT, "linestyle": "-", "linewidth": 1.2},
        OWN: {"color": ORANGE, "linestyle": "--", "marker": "^", "linewidth": 1.6, "zorder": 3},
        f"trial {report.best}, the best": {"color": INK, "linestyle": "-", "marker": "o", "linewidth": 1.8, "zorder": 4},
    }
    drawn: set[str] = set()
    for trial in report.trials:
        kind = OWN if trial.is_default else trial.state
        kind = f"trial {report.best}, the best" if trial.number == report.best and not trial.is_default else kind
        if trial.curve and kind in lines:
            label = {"complete": "ran to its end"}.get(kind, kind)
            axes.plot(*zip(*trial.curve, strict=True), **lines[kind], label=None if kind in drawn else label)
            drawn.add(kind)
    axes.set(xlabel="share of the training", ylabel=LOSS_AXIS, xlim=(0, 1.02))
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    near_the_best(axes, np.array([loss for trial in report.trials for _, loss in trial.curve]))
    legend_below(axes)
    entitle(figure, "Held-out log loss as trainings went", _of(report))
    return figure


def _varied(report: TuneReport) -> list[str]:
    """Numbers that were drawn and have enough values for a picture."""
    ended = [trial for trial in _ended(report) if not trial.is_default]
    names = dict.fromkeys(name for trial in ended for name in trial.drawn)
    values = {name: {t.drawn[name] for t in ended if name in t.drawn} for name in names}
    return [name for name, found in values.items() if len(found) >= LEAST_SPAN and not any(isinstance(v, bool) for v in found)]


@styled
def settings_figure(report: TuneReport, names: Sequence[str]) -> Figure:
    """Log loss against each setting, a panel each; the trials are the same in all."""
    from matplotlib.figure import Figure

    ended = [trial for trial in _ended(report) if trial.drawn]
    across = min(3, len(names))
    down = -(-len(names) // across)
    figure = Figure(figsize=(3.4 * across + 1, 2.9 * down + 1.2), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        known = [trial for trial in ended if name in trial.drawn]
        values = [float(trial.drawn[name]) for trial in known]
        _dots(axes, values, known)
        if min(values) > 0 and max(values) >= 5 * min(values):
            axes.set_xscale("log")
            round_ticks(axes, np.array(values))
        near_the_best(axes, np.array([trial.log_loss for trial in known], dtype=float))
        axes.set(xlabel=name)
    for axes in panels[len(names) :]:
        axes.remove()
    figure.supylabel(LOSS_AXIS, fontsize=10)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    entitle(figure, f"Log loss against settings, {_of(report)}", "")
    return figure


@styled
def importance_figure(report: TuneReport) -> Figure:
    """What mattered, as bars."""
    figure, axes = one_panel(8, 1.8 + 0.4 * len(report.importance))
    importance_bars(axes, report.importance)
    entitle(figure, "What mattered", f"{_of(report)}, {amount(len(_ended(report)), 'finished trial')}")
    return figure


def tune_html(report: TuneReport, drawn: Mapping[str, Drawn]) -> str:
    """The study as one self-contained page."""
    best = report.winner
    tiles = [(str(len(report.trials)), "trials"), (settings_text(best.settings), "the best's settings that differ")]
    if report.judging:
        gain = f"{report.judging.difference:+.4f} ± {report.judging.error:.4f}"
        tiles.insert(0, (gain, f"nats against the entry's own, on {report.judging.rows:,} rows that chose nothing"))
    blocks: list[str | Table | Drawn] = [*judgement(report)]
    sections = [
        Section("The best settings", [*blocks, *([compared_table(report)] if report.choosing else [])]),
        Section("How the study went", [drawn[name] for name in ("tune-history.png", "tune-curves.png")]),
        Section("Trials", [trials_table(report)]),
    ]
    rest = [drawn[name] for name in ("tune-settings.png", "tune-importance.png") if name in drawn]
    sections += [Section("Settings", [*rest, *([importance_table(report)] if report.importance else [])])] if rest else []
    return sections_html(f"Tuning {report.entry}", f"{report.study}; {_counts(report)}", tiles, sections)
