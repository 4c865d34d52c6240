"""The default view of MLflow's runs table: columns and order of members.

MLflow keeps a shared view of its runs table as JSON in a tag of the experiment, `mlflow.sharedViewState.KEY`, and shows it at
`?viewStateShareKey=KEY` (mlflow/server/js, `useSharedExperimentViewState`). An older or newer UI that does not know the tag
shows its own columns.
"""

from __future__ import annotations

import json

from zoo.scores.metric_names import HEADLINES, LOG_LOSS, REFINEMENT, ROWS

KEY = "members"
ORDER = f"metrics.`{LOG_LOSS}`"
COLUMNS = (*(f"metrics.`{name}`" for name in (*HEADLINES, ROWS) if name != REFINEMENT), "tags.`zoo.target`")
WIDTH = 118  # pixels of a column: all of them side by side in a window of 1600
FILTER = "tags.`zoo.scored` = 'yes'"  # members and ensembles; clear it to see entries and stages


def view_state() -> dict[str, object]:
    """The state of MLflow's runs table.

    It says what is searched, in which order, and which columns show.
    """
    return {
        "searchFilter": FILTER,
        "orderByKey": ORDER,
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": list(COLUMNS),
        "columnOrder": list(COLUMNS),
        "columnWidths": dict.fromkeys(COLUMNS, WIDTH),
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "FIRST_20_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }


def view_tags() -> dict[str, str]:
    """The experiment's tag that holds the view."""
    return {f"mlflow.sharedViewState.{KEY}": json.dumps(view_state(), sort_keys=True)}


def experiment_page(experiment: str | None) -> str:
    """The UI's place that compares an experiment's runs: scored members, best first."""
    if experiment is None:
        return "/experiments"
    # MLflow's other workflow is about language-model applications: its menu has no registered models.
    return f"/experiments/{experiment}/runs?viewStateShareKey={KEY}&compareRunsMode=TABLE&workflowType=machine_learning"
