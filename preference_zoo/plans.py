"""Plans: built of the store's members or of tables alone, used on battles, and judged."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from preference_zoo.handed import Handed, Table
from preference_zoo.shown import INTERRUPTED, Shown, local, say
from zoo.errors import ZooError, amount

if TYPE_CHECKING:
    import ensemble.plan


class Plan:
    """A plan of `build`, or one that lies in a file.

    `path`: its file, which `ensemble show`, `predict` and `bundle` read. `contents`: all that it says, as
    `ensemble.plan.Plan`.

    >>> plan = pz.Plan("plan.json")
    >>> plan.log_loss, plan.members
    """

    def __init__(self, path: Path | str) -> None:
        from ensemble.plan import load_plan

        self.path = Path(path)
        self.contents: ensemble.plan.Plan = load_plan(self.path)

    @property
    def log_loss(self) -> float:
        """What it promises, out of fold: of the rows that it was recalibrated on, else of its own."""
        from ensemble.report.evaluate import promised

        return promised(self.contents)[0]

    @property
    def members(self) -> pd.DataFrame:
        """The members in the order they run: weight, coverage, seconds, log loss alone."""
        from ensemble.report.views import members_table

        return pd.DataFrame(members_table(self.contents).records())

    def predict(
        self,
        battles: Table | None = None,
        *,
        scores: Mapping[str, Table] | None = None,
        output: Path | str = "submission.csv",
        budget: str | None = None,
        like: Table | None = None,
        columns: Mapping[str, str] | None = None,
    ) -> pd.DataFrame:
        """Probabilities for battles within the plan's budget, also written to `output`.

        As `ensemble predict` makes them. The plan's members run in processes of their own; an interrupted prediction leaves a
        whole file, and the same call goes on from there. `scores`: members' tables for these rows in the place of running them;
        with tables alone, no battles are needed. `like`: the competition's sample submission, whose columns are written.
        `columns`: where tables without battles, or `like`, have unusual ones. ZooError where nothing can be predicted, and
        where every row is the plan's prior.

        >>> plan.predict(scores={"llama": llama_test, "yi": yi_test})
        >>> plan.predict(test, budget="5m")
        """
        from ensemble.predict.apart import predict_apart

        out, within = Path(output), None if budget is None else str(budget)
        with Handed() as handed:
            tables, sample = handed.paths(scores), handed.optional(like, "like")
            if battles is None:
                self._blend(tables, out, sample, columns, handed)
            elif columns is not None:
                raise ZooError("columns: are for tables alone; leave the battles out, or these columns")
            else:
                path = handed.path(battles, "battles")
                try:
                    predict_apart(self.path, path, out, budget=within, scores=tables, like=sample, say=handed.say)
                except KeyboardInterrupt:
                    say(INTERRUPTED)
                    raise
        return pd.read_csv(out, dtype={"id": "str"}, float_precision="round_trip")

    def _blend(
        self, tables: Mapping[str, Path], output: Path, like: Path | None, columns: Mapping[str, str] | None, handed: Handed
    ) -> None:
        from ensemble.predict.from_scores import predict_from_scores
        from zoo.pipeline.submissions import read_sample

        if not tables:
            raise ZooError("give the battles to predict, or the members' tables of them with scores={MEMBER: TABLE}")
        sample = None if like is None else read_sample(like, columns)
        done = predict_from_scores(self.path, tables, output, columns=columns, like=sample, say=handed.say)
        for line in (*done.summary(), *done.warnings):
            handed.say(line)

    def evaluate(self, battles: Table, submission: Table = "submission.csv", *, max_bad_rows: float = 0.1) -> Shown:
        """A submission's log loss on labelled battles, beside uniform, the prior and each member.

        As `ensemble evaluate` has it; members are there for battles that `predict` was given.

        >>> plan.evaluate(labelled, plan.predict(labelled))
        """
        from ensemble.report.evaluate import BLEND, evaluate, evaluation_table
        from ensemble.report.record import record_evaluation

        started = time.monotonic()
        with Handed() as handed:
            path, given = handed.path(battles, "battles"), handed.path(submission, "submission")
            lines = evaluate(self.path, path, given, say=handed.say, most_bad=max_bad_rows)
            record_evaluation(self.path, path, given, lines, time.monotonic() - started)
        frame = Shown([{**vars(line), "z": line.z} for line in lines])
        blend = next(line for line in lines if line.name == BLEND)
        frame.shown_as(f"log loss {blend.log_loss:.4f} on {amount(blend.rows, 'row')}", [evaluation_table(lines)])
        return frame

    def recalibrate(
        self,
        labels: Table,
        *,
        scores: Mapping[str, Table] | None = None,
        run: bool = False,
        output: Path | str | None = None,
        max_bad_rows: float = 0.1,
    ) -> Plan:
        """A plan for battles of another kind, by a few labelled ones; 50 do.

        As `ensemble recalibrate` makes it. What members say of these is taken from `scores`, from a finished prediction of
        them, or from the store; `run`: run those that have said nothing. The gain is judged by prompt folds, and a calibration
        that surely hurts is not taken. This plan stays as it is; the new one goes to `output`, else PLAN-recalibrated.json.

        >>> plan.recalibrate(votes_of_the_target_kind, run=True)
        """
        from ensemble.predict.missing import Labelled
        from ensemble.report.planned import recalibrated, recalibrated_path
        from ensemble.report.shift import told_of

        out = recalibrated_path(self.path) if output is None else Path(output)
        with Handed() as handed:
            asked = Labelled(handed.path(labels, "labels"), handed.paths(scores), run, max_bad_rows)
            new = recalibrated(self.path, asked, out, say=handed.say)
        assert new.calibration is not None
        say(told_of(new.calibration))
        return Plan(out)

    def show(self, path: Path | str = "plan.html") -> Path:
        """Write the plan's page, one HTML file that needs nothing else; where it is."""
        from zoo.store import check_output, write_atomic

        check_output(Path(path), self.path)
        write_atomic(Path(path), self._page())
        return Path(path)

    def _page(self) -> str:
        from ensemble.report.page import plan_html
        from zoo.settings import store_folder

        return plan_html(self.contents, store_folder())

    def __repr__(self) -> str:
        names = " + ".join(member.name for member in self.contents.members)
        return f"Plan({local(str(self.path))!r}: {names}, log loss {self.log_loss:.4f})"

    def __str__(self) -> str:
        from ensemble.report.views import plan_page
        from zoo.report.text import as_text

        return as_text(plan_page(self.contents))

    def _repr_html_(self) -> str:
        from ensemble.report.views import members_table
        from zoo.report.html import fragment, frame

        loss = f"{self.contents.oof_log_loss:.4f} ± {self.contents.oof_log_loss_se:.4f}"
        line = f"{local(str(self.path))}: log loss {loss} out of fold on {self.contents.fitted_rows:,} rows"
        return fragment([line, members_table(self.contents)]) + frame(self._page(), f"the plan {self.path.name}")
