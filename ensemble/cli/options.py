"""Options that several commands take, and those of `ensemble build` and `frontier`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from ensemble.search.pose import TARGET, BuildOptions
from zoo.cli.app import MOST_BAD, MaxBadRows
from zoo.cli.base import complete_target
from zoo.cost.price import COMPETITION_ROWS
from zoo.errors import ZooError


def complete_pool() -> list[str]:
    """Kinds of pools for shell completion."""
    from ensemble.plan import PoolKind

    return list(get_args(PoolKind))


Budget = Annotated[str, typer.Option("--budget", help="Time of one whole prediction: 9h, 1h30m, 5m, 90s.")]
TargetName = Annotated[
    str, typer.Option("--target", help="Machine that predicts, one of `zoo target list`.", autocompletion=complete_target)
]
Rows = Annotated[int, typer.Option("--rows", min=1, help="Rows of the file to be predicted.")]
Margin = Annotated[
    float | None, typer.Option("--margin", help="Predicted seconds are multiplied by it. Default: the target's.")
]
Lengths = Annotated[Path | None, typer.Option("--lengths", help="Battles whose lengths are those to be predicted.")]
BattlesFile = Annotated[
    Path | None,
    typer.Option("--data", "--labels", help="The labelled battles that the members were scored on."),
]
BattlesFileBefore = Annotated[Path | None, typer.Option("--battles", hidden=True, help="What --data was called before.")]
Include = Annotated[
    list[str] | None,
    typer.Option("--include", help="Keep this member though it looks in-sample or costs many rows. Repeatable."),
]
Exclude = Annotated[
    list[str] | None, typer.Option("--exclude", help="Leave out this member, or one table by its fingerprint. Repeatable.")
]
Prefer = Annotated[
    list[str] | None,
    typer.Option("--prefer", help="Fingerprint of a table to take for its member, whatever others have. Repeatable."),
]
Alias = Annotated[
    str | None,
    typer.Option("--alias", help="Only members whose checkpoint has this alias: champion, candidate; see `zoo promote`."),
]
PoolKinds = Annotated[
    list[str] | None,
    typer.Option(
        "--pool",
        help="Only plans with this kind of pool: logistic, log, linear (equal and greedy weights are), ... Repeatable.",
        autocompletion=complete_pool,
    ),
]
Seconds = Annotated[
    list[str] | None,
    typer.Option("--seconds", metavar="NAME=TIME", help="This member takes 4h or 900s for all --rows. Repeatable."),
]
Like = Annotated[
    list[str] | None,
    typer.Option(
        "--like", metavar="NAME=ENTRY", help="This member takes what `zoo cost` says of ENTRY or ENTRY@VARIANT. Repeatable."
    ),
]
ScoreFiles = Annotated[
    list[str] | None,
    typer.Option("--scores", metavar="[NAME=]FILE", help="A table of out-of-fold scores, in place of the store's. Repeatable."),
]
ColumnNames = Annotated[
    str | None, typer.Option("--columns", metavar="NAMES", help="Columns of --scores: a=..., b=..., tie=..., id=....")
]
WholeFile = Annotated[bool, typer.Option("--whole-file", help="Every member sees every row; no gates.")]
Parsimony = Annotated[
    bool,
    typer.Option(
        "--parsimony/--no-parsimony", help="Of the plans within one standard error of the best take the cheapest, not the best."
    ),
]
PositionBias = Annotated[bool, typer.Option("--position-bias", help="Let log pools favour a side: the order is not random.")]
Trials = Annotated[int, typer.Option("--trials", min=0, help="Optuna's trials beside the exact search, in all; 0: none.")]
Timeout = Annotated[str, typer.Option("--timeout", help="Most time for these trials: 2m, 90s. One that has begun is finished.")]
Jobs = Annotated[int, typer.Option("--n-jobs", min=1, help="Trials at a time.")]
PlanFile = Annotated[Path, typer.Argument(help="A plan of `ensemble build`.")]
RobustColumn = Annotated[
    str | None,
    typer.Option(
        "--robust",
        metavar="COLUMN",
        help="Choose by groups left out of the build in turn: a column of the battles (their source), language, or length.",
    ),
]
RobustMeasure = Annotated[
    str, typer.Option("--robust-by", metavar="worst|mean", help="With --robust: by the worst group, or by the groups' mean.")
]
CalibrateOn = Annotated[
    Path | None,
    typer.Option("--calibrate-on", help="Labelled battles of the kind to be predicted: as `ensemble recalibrate` does."),
]
CalibrateScores = Annotated[
    list[str] | None,
    typer.Option("--calibrate-scores", metavar="MEMBER=FILE", help="A member's table for --calibrate-on. Repeatable."),
]
CalibrateRun = Annotated[
    bool, typer.Option("--run", help="With --calibrate-on: run the plan's members whose probabilities are nowhere.")
]


@dataclass(frozen=True)
class Asked:
    """The options of both `build` and `frontier`, as they are typed; see `takes_asked`.

    `options` has what they ask for.
    """

    target: TargetName = TARGET
    rows: Rows = COMPETITION_ROWS
    margin: Margin = None
    lengths: Lengths = None
    battles: BattlesFile = None
    scores: ScoreFiles = None
    columns: ColumnNames = None
    seconds: Seconds = None
    like: Like = None
    include: Include = None
    max_bad_rows: MaxBadRows = MOST_BAD
    exclude: Exclude = None
    prefer: Prefer = None
    alias: Alias = None
    pools: PoolKinds = None
    whole_file: WholeFile = False
    position_bias: PositionBias = False
    trials: Trials = 50
    timeout: Timeout = "2m"
    n_jobs: Jobs = 1
    robust: RobustColumn = None
    robust_by: RobustMeasure = "worst"
    battles_before: BattlesFileBefore = None

    def options(self, context: typer.Context) -> BuildOptions:
        """What is asked for; ZooError for words that say nothing."""
        from ensemble.members.files import named_files
        from zoo.pipeline.table_columns import parse_columns
        from zoo.report.duration import parse_budget

        seconds = pairs("--seconds", "NAME=TIME", self.seconds)
        return BuildOptions(
            target=None if is_default(context, "target") else self.target,
            rows=self.rows,
            margin=self.margin,
            lengths=self.lengths,
            battles=self.battles or self.battles_before,
            scores=named_files(self.scores or ()),
            columns=None if self.columns is None else parse_columns(self.columns),
            seconds={name: parse_budget(text) for name, text in seconds.items()},
            like=pairs("--like", "NAME=ENTRY[@VARIANT]", self.like),
            include=self.include or (),
            max_bad_rows=self.max_bad_rows,
            exclude=self.exclude or (),
            prefer=self.prefer or (),
            alias=self.alias,
            pools=self.pools or (),
            whole_file=self.whole_file,
            position_bias=self.position_bias,
            trials=self.trials,
            timeout_seconds=parse_budget(self.timeout),
            n_jobs=self.n_jobs,
            robust=self.robust,
            robust_by=self.robust_by,
        )


def is_default(context: typer.Context, option: str) -> bool:
    """Whether a command has the option and its user did not give it."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "DEFAULT"


def pairs(option: str, form: str, given: list[str] | None) -> dict[str, str]:
    """`NAME=VALUE` of an option that is given again and again, by name."""
    found: dict[str, str] = {}
    for text in given or ():
        name, _, value = text.partition("=")
        if not name or not value:
            raise ZooError(f"{option} {text}: give {form}")
        if name in found:
            raise ZooError(f"{option} {text}: {name} has one already; give it once")
        found[name] = value
    return found


def takes_asked(function: Callable[..., None]) -> Callable[..., None]:
    """A command whose argument `asked` is given as options, one for each field of `Asked`.

    They stand in help where it stands in the signature. Typer knows no options that come in one object.
    """
    spread = inspect.signature(Asked, eval_str=True).parameters

    def command(**given: Any) -> None:
        function(asked=Asked(**{name: given.pop(name) for name in spread}), **given)

    parameters: list[inspect.Parameter] = []
    for own in inspect.signature(function, eval_str=True).parameters.values():
        parameters += spread.values() if own.annotation is Asked else [own]
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command
