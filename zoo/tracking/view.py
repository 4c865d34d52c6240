"""Preset views of MLflow: members, cost against log loss, settings against log loss.

MLflow keeps a shared view of its runs table as JSON in a tag of the experiment, `mlflow.sharedViewState.KEY`, and shows it at
`?viewStateShareKey=KEY` (mlflow/server/js, `useSharedExperimentViewState`; the charts' own fields are in `runs-charts.types`).
An older or newer UI that does not know the tag shows its own columns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from zoo.scores.metric_names import HEADLINES, HOURS_25K, LOG_LOSS, REFINEMENT, ROWS

KEY, COST, SETTINGS = "members", "cost", "settings"
VIEWS = {KEY: "members", COST: "cost against log loss", SETTINGS: "settings against log loss"}  # by what opens them
ORDER = f"metrics.`{LOG_LOSS}`"
COLUMNS = (
    *(f"metrics.`{name}`" for name in (*HEADLINES, ROWS) if name != REFINEMENT),
    *("tags.`zoo.target`", "tags.`zoo.entry`"),
)
NAME = "attributes.`Run Name`"
WIDTH, NAME_WIDTH = 105, 290  # pixels of a column: nearly all of them side by side in a window of 1600, names of 40 letters
FILTER = "tags.`zoo.scored` = 'yes'"  # members and ensembles; clear it to see entries and stages
MOST_SETTINGS = 6  # axes of settings that people can follow
SECTION = "zoo"


def view_state(charts: Sequence[Mapping[str, object]] = ()) -> dict[str, object]:
    """The state of MLflow's runs table.

    It says what is searched, in which order, which columns show, and which charts the chart view has, where not its own.
    """
    state: dict[str, object] = {
        "searchFilter": FILTER,
        "orderByKey": ORDER,
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": list(COLUMNS),
        "columnOrder": [NAME, *COLUMNS],  # widths are taken of these only
        "columnWidths": {NAME: NAME_WIDTH, **dict.fromkeys(COLUMNS, WIDTH)},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "SHOW_ALL",
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
    if charts:
        section = {"uuid": SECTION, "name": "Log loss", "display": True, "isReordered": False, "isGenerated": False}
        # Else sections go by their names, and MLflow's own of single metrics come before this one.
        state |= {"compareRunCharts": list(charts), "compareRunSections": [section], "isAccordionReordered": True}
    return state


def view_tags(settings: Sequence[str] = ()) -> dict[str, str]:
    """The experiment's tags that hold the views.

    `settings`: parameters that differ between its scored runs; without any, the view of settings has MLflow's own charts.
    """
    views = {KEY: view_state(), COST: view_state([_scatter("cost", HOURS_25K)]), SETTINGS: view_state()}
    if settings:
        shown = settings[:MOST_SETTINGS]
        selected = {"selectedParams": list(shown), "selectedMetrics": [LOG_LOSS], "showAllRuns": True}
        charts = [_card("parallel", "PARALLEL") | selected]
        charts += [_scatter(name, name, kind="PARAM") for name in shown]
        views[SETTINGS] = view_state(charts)
    return {view_tag(key): json.dumps(state, sort_keys=True) for key, state in views.items()}


def view_tag(key: str) -> str:
    """The experiment's tag that holds one view."""
    return f"mlflow.sharedViewState.{key}"


def _card(name: str, kind: str) -> dict[str, object]:
    base = {"uuid": f"zoo-{name}", "type": kind, "metricSectionId": SECTION, "runsCountToCompare": 100}
    return base | {"deleted": False, "isGenerated": False}


def _scatter(name: str, key: str, *, kind: str = "METRIC") -> dict[str, object]:
    axes = {"xaxis": {"key": key, "type": kind}, "yaxis": {"key": LOG_LOSS, "type": "METRIC"}}
    return _card(name, "SCATTER") | axes


def settings_that_differ(params: Sequence[Mapping[str, str]]) -> list[str]:
    """Names of settings with several values among scored runs, those of the most first.

    `params`: of each run. Those that most runs lack are left out: a chart drops the runs that have no value.
    """
    names = {name for run in params for name in run if name.partition(".")[0] in _SECTIONS and not name.endswith("fingerprint")}
    having = {name: [run[name] for run in params if name in run] for name in names}
    differing = [name for name in names if len(set(having[name])) > 1 and 2 * len(having[name]) > len(params)]
    return sorted(differing, key=lambda name: (-len(having[name]), _SECTIONS.index(name.partition(".")[0]), name))


_SECTIONS = ("train", "merge", "quantize", "lexical", "prompt", "variant", "score", "held")


def view_page(experiment: str, key: str) -> str:
    """The UI's place that shows a view of an experiment."""
    mode = "TABLE" if key == KEY else "CHART"
    # MLflow's other workflow is about language-model applications: its menu has no registered models.
    query = f"viewStateShareKey={key}&compareRunsMode={mode}&workflowType=machine_learning"
    return f"/experiments/{experiment}/runs?{query}"


def experiment_page(experiment: str | None) -> str:
    """The UI's place that compares an experiment's runs: scored members, best first."""
    return "/experiments?workflowType=machine_learning" if experiment is None else view_page(experiment, KEY)
