"""A plan as what is uploaded to run it in a notebook without a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from preference_zoo.handed import Handed, Table
from preference_zoo.plans import Plan
from preference_zoo.shown import Shown, local, say
from zoo.report.html import fragment


@dataclass(frozen=True)
class Bundle:
    """The folder of a bundle: what was checked of it, and the commands that upload and run it.

    `findings`: columns `check`, `verdict`, `what`, `mend`. Nothing is uploaded.
    """

    path: Path
    findings: pd.DataFrame
    commands: tuple[str, ...]

    @property
    def failed(self) -> int:
        """How many of its checks failed."""
        return int((self.findings["verdict"] == "fail").sum())

    def rehearse(self, battles: Table) -> Shown:
        """Run the bundle's own script here on rows of these battles, as planned and with faults.

        As `ensemble bundle check --battles` does: without a network, and with this machine's environment and engine in the
        place of the notebook's.
        """
        from ensemble.bundle.dry_run import dry_run
        from ensemble.bundle.trials import trials_table

        with Handed() as handed:
            trials = dry_run(self.path, handed.path(battles, "battles"), say=handed.say)
        frame = Shown([vars(trial) for trial in trials])
        whole = sum(trial.whole for trial in trials)
        frame.shown_as(f"{whole} of {len(trials)} dry runs left a whole submission", [trials_table(trials)])
        return frame

    def __repr__(self) -> str:
        return f"Bundle({local(str(self.path))!r}: {self.failed or 'nothing'} of {len(self.findings)} checks failed)"

    def _repr_html_(self) -> str:
        findings: str = self.findings._repr_html_()  # type: ignore[operator]
        return findings + fragment(["what to upload, and what then:", "\n".join(self.commands)])


def bundle(
    plan: Plan | Path | str,
    *,
    competition: str,
    user: str,
    target: str | None = None,
    output: Path | str = "bundle",
    modules: Path | str | None = None,
) -> Bundle:
    """Make the folder of a plan's bundle and check it, as `ensemble bundle` does.

    `competition`, `user`: as in the addresses of the competition's and your own page. `target`: the notebook's machine, if it
    is not the plan's. `modules`: folder of FlashInfer's modules, compiled for its cards.

    >>> made = pz.bundle(plan, competition="llm-classification-finetuning", user="my-name")
    >>> print(*made.commands, sep="\\n")
    """
    from ensemble.bundle.check import check_bundle
    from ensemble.bundle.commands import commands_of
    from ensemble.bundle.make import Asked, make_bundle
    from zoo.report.views import findings_table
    from zoo.settings import store_folder

    folder = Path(output)
    path = plan.path if isinstance(plan, Plan) else Path(plan)
    asked = Asked(path, competition, user, store_folder(), target, None if modules is None else Path(modules))
    made = make_bundle(asked, folder, say)
    findings = check_bundle(folder)
    frame = Shown([finding.model_dump() for finding in findings])
    frame.shown_as(f"{len(findings)} checks", [findings_table(findings)])
    return Bundle(folder, frame, tuple(commands_of(made, folder)))
