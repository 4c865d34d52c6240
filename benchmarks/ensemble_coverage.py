"""Log loss at six budgets, whole files against coverage plans, on real battles.

    python benchmarks/ensemble_coverage.py BATTLES.csv [--rows 25000] [--out benchmarks/results]

Members: scikit-learn models from quick to slow, trained by folds here with their prediction timed, and whatever the store of
`ZOO_HOME` holds of these battles for the cpu target. Writes ensemble_coverage.md and .json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ensemble.members.gather import align
from ensemble.members.table import Members
from ensemble.search.build import build_plan, pose_problem
from ensemble.search.decide import BuildRequest
from zoo.contracts import Cost, ScoreCard, Variant
from zoo.cost.price import COMPETITION_ROWS
from zoo.data.battles import dataset_digest, join_turns, read_battles
from zoo.data.splits import assign_folds
from zoo.pipeline.members import Table, score_tables
from zoo.scores.tables import score_table, swap_sides
from zoo.settings import home
from zoo.targets import load_target, machine_fingerprint

FOLDS, BUDGETS = 5, 6


def texts_of(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({name: [join_turns(t) for t in frame[name]] for name in ("prompt", "response_a", "response_b")})


def lengths(texts: pd.DataFrame) -> np.ndarray:
    """Log lengths, list marks and line breaks of A minus those of B: odd under exchange."""

    def one(column: pd.Series) -> np.ndarray:
        counts = [column.str.len(), column.str.count("\n"), column.str.count(r"(?m)^\s*[-*\d]"), column.str.count("```")]
        return np.log1p(np.stack([c.to_numpy(dtype=float) for c in counts], axis=1))

    difference = one(texts["response_a"]) - one(texts["response_b"])
    return np.hstack([difference, np.abs(difference)])


def length_model() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    return make_pipeline(FunctionTransformer(lengths), StandardScaler(), LogisticRegression(C=0.1))


def tfidf_model(analyzer: str, features: int, alpha: float) -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    ngrams = (1, 2) if analyzer == "word" else (3, 4)
    vectorizer = HashingVectorizer(analyzer=analyzer, ngram_range=ngrams, n_features=features, alternate_sign=False)

    def differences(texts: pd.DataFrame) -> Any:
        from scipy.sparse import hstack

        a, b = vectorizer.transform(texts["response_a"]), vectorizer.transform(texts["response_b"])
        return hstack([a - b, abs(a - b), lengths(texts) / 5]).tocsr()

    return make_pipeline(
        FunctionTransformer(differences),
        SGDClassifier(loss="log_loss", alpha=alpha, max_iter=12, tol=None, average=True, random_state=0),
    )


def boosted_model() -> Any:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    class Topics:
        """Topics of the prompt and of both answers, fitted on the answers."""

        def fit(self, texts: pd.DataFrame, y: object = None) -> Topics:
            self.model = make_pipeline(TfidfVectorizer(max_features=8_000, sublinear_tf=True), TruncatedSVD(24, random_state=0))
            self.model.fit(pd.concat([texts["response_a"], texts["response_b"], texts["prompt"]]))
            return self

        def transform(self, texts: pd.DataFrame) -> np.ndarray:
            prompt, a, b = (self.model.transform(texts[name]) for name in ("prompt", "response_a", "response_b"))
            return np.hstack([prompt, a - b, np.abs(a - b), lengths(texts)])

    topics = Topics()
    features = FunctionTransformer(lambda x: topics.transform(x))
    boosting = HistGradientBoostingClassifier(max_iter=80, learning_rate=0.06, max_leaf_nodes=12, random_state=0)

    class Model:
        def fit(self, texts: pd.DataFrame, y: np.ndarray) -> Model:
            topics.fit(texts)
            self.classifier = boosting.fit(features.transform(texts), y)
            self.classes_ = self.classifier.classes_
            return self

        def predict_proba(self, texts: pd.DataFrame) -> np.ndarray:
            return self.classifier.predict_proba(features.transform(texts))

    return Model()


MODELS: dict[str, Callable[[], Any]] = {
    "lengths": length_model,
    "words": lambda: tfidf_model("word", 2**16, 1e-3),
    "characters": lambda: tfidf_model("char_wb", 2**17, 1e-3),
    "topics": boosted_model,
}


def member(name: str, make: Callable[[], Any], battles_path: Path) -> Table:
    """A model by folds, both orders shown in training and averaged in prediction, and what its predictions cost."""
    battles = read_battles(battles_path)
    frame = battles.frame
    texts, y = texts_of(frame), frame["label"].to_numpy()
    exchanged = texts.rename(columns={"response_a": "response_b", "response_b": "response_a"})[list(texts.columns)]
    folds = assign_folds(frame, FOLDS)
    p, seconds = np.empty((len(y), 3)), 0.0
    for fold in range(FOLDS):
        held = folds == fold
        both, labels = pd.concat([texts[~held], exchanged[~held]]), np.concatenate([y[~held], np.array([1, 0, 2])[y[~held]]])
        model = make().fit(both, labels)
        started = time.monotonic()
        p[held] = (model.predict_proba(texts[held]) + swap_sides(model.predict_proba(exchanged[held]))) / 2
        seconds += time.monotonic() - started
    characters = sum(texts[c].str.len() for c in texts).to_numpy()
    tokens = np.maximum(1, characters // 4)
    cost = Cost(
        target="cpu",
        load_seconds=1.5,
        seconds_per_token=seconds / float(tokens.sum()),
        gpus=0,
        measured_rows=len(y),
        machine=machine_fingerprint(),
    )
    names = {"member": name, "entry": name, "checkpoint": name, "engine": "scikit-learn"}
    card = ScoreCard(
        variant=Variant(), target="cpu", dataset_digest=dataset_digest(battles), rows=len(y), failed_rows=0, cost=cost, **names
    )
    return Table(Path(name), card, score_table(frame["id"].tolist(), p, fold=folds, n_tokens=tokens), battles_path)


def table_of(members: Members, rows: int) -> list[dict[str, Any]]:
    """Whole-file and coverage plans at budgets from the cheapest plan to nearly all members."""
    target = load_target("cpu")
    problem = pose_problem(members, BuildRequest(target, 1.0, rows))
    everyone = tuple(range(len(members.names)))
    least, most = min(problem.prices.seconds((j,)) for j in everyone), problem.prices.seconds(everyone)
    lines = []
    for budget in np.geomspace(least * 1.15, most * 1.1, BUDGETS):
        line: dict[str, Any] = {"budget_seconds": float(budget)}
        for kind, coverage in (("whole", False), ("coverage", True)):
            plan = build_plan(members, BuildRequest(target, float(budget), rows, 1.0, coverage=coverage, parsimony=False))
            line[kind] = plan.oof_log_loss
            line[f"{kind}_se"] = plan.oof_log_loss_se
            line[f"{kind}_members"] = {m.name: round(m.coverage, 3) for m in plan.members}
        lines.append(line)
    return lines


def report(members: Members, lines: list[dict[str, Any]], rows: int, battles: Path) -> str:
    def named(found: dict[str, float]) -> str:
        return " + ".join(name if share == 1 else f"{name} on {share:.0%}" for name, share in found.items())

    problem = pose_problem(members, BuildRequest(load_target("cpu"), 1.0, rows))
    work = problem.prices.pricing.row_seconds.sum(axis=1) / rows * 1000
    prices = ", ".join(f"{name} {ms:.2f} ms a row" for name, ms in zip(members.names, work, strict=True))
    return "\n".join(
        [
            "# Whole files against coverage",
            "",
            f"{date.today().isoformat()}, {os.cpu_count()} cores, {battles.name}: {len(members.y):,} rows out of fold; priced "
            f"for {rows:,} rows on cpu, margin 1, without parsimony. Prices: {prices}. Written by "
            "`benchmarks/ensemble_coverage.py`.",
            "",
            "| budget, s | whole files | | coverage | |",
            "|---|---|---|---|---|",
            *(
                f"| {x['budget_seconds']:.0f} | {x['whole']:.4f} ± {x['whole_se']:.4f} | {named(x['whole_members'])} "
                f"| {x['coverage']:.4f} ± {x['coverage_se']:.4f} | {named(x['coverage_members'])} |"
                for x in lines
            ),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("battles", type=Path)
    parser.add_argument("--rows", type=int, default=COMPETITION_ROWS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    tables = [member(name, make, options.battles) for name, make in MODELS.items()]
    members = align([*tables, *score_tables(home() / "store")], target="cpu", battles=options.battles)
    lines = table_of(members, options.rows)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "ensemble_coverage.json").write_text(json.dumps(lines, indent=1) + "\n")
    text = report(members, lines, options.rows, options.battles)
    (options.out / "ensemble_coverage.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
