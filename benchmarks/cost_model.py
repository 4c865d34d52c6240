"""How far off the cost model is: on published run times left out, on lengths held out, and hours of the three large entries.

    python benchmarks/cost_model.py published                    # leave-one-out table and the fitted rates
    python benchmarks/cost_model.py hours LENGTHS.csv            # 25,000 rows of the three entries on t4x2
    python benchmarks/cost_model.py forms LENGTHS.csv            # the same in each form that two T4s run
    python benchmarks/cost_model.py held-out FOLDER [FOLDER ...] # folders of a score stage's timed chunks: <variant>/chunks

Prints markdown. A chunk folder holds NNNNN.json files with rows, tokens, tokens_sq and seconds, as every scored artifact does.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo.checks import check_entry
from zoo.contracts import Cost
from zoo.cost.fit import Piece, arrays_of, fit_cost
from zoo.cost.forecast import forecast
from zoo.cost.interval import Interval, draws_of
from zoo.cost.lengths import file_of
from zoo.cost.price import COMPETITION_ROWS
from zoo.cost.published import Published, PublishedRun, fit_rates, load_published, published_rates, run_operations
from zoo.entries.load import load_entry, override
from zoo.targets import load_target

ENTRIES = ("llama-3-8b", "gemma-2-9b", "yi-34b")


@dataclass(frozen=True)
class LeftOut:
    """A run beside what the others say of it: `hours` predicted without it, and the logarithm of predicted / stated."""

    run: PublishedRun
    hours: Interval
    log_ratio: float


def leave_one_out(published: Published, *, groups: bool = False) -> list[LeftOut]:
    """Each run forecast from all others, or with `groups` from all runs of other authors. Runs outside the fit are included."""
    left = []
    for run in published.runs:
        others = [o for o in published.runs if (o.group != run.group if groups else o.name != run.name)]
        seconds = fit_rates(others, published).seconds(run_operations(run, published), submission=run.kind == "submission")
        hours = Interval(low=seconds.low / 3600, likely=seconds.likely / 3600, high=seconds.high / 3600)
        left.append(LeftOut(run, hours, float(np.log(hours.likely / run.hours))))
    return left


def typical_error(left: Sequence[LeftOut]) -> float:
    """Root mean square of the logarithm of predicted / stated over the runs that are fitted: 0.3 is a factor of 1.35."""
    return float(np.sqrt(np.mean([out.log_ratio**2 for out in left if out.run.fit])))


def published() -> None:
    """Each published run forecast without itself, and without any run of its author."""
    runs = load_published()
    alone, authors = leave_one_out(runs), leave_one_out(runs, groups=True)
    print("| run | cap | weights | kind | stated h | low | likely | high | likely / stated | without its author |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for one, other in sorted(zip(alone, authors, strict=True), key=lambda pair: not pair[0].run.fit):
        run, hours = one.run, one.hours
        sign = {"about": "", "below": "< ", "above": "> "}[run.bound]
        cells = [run.name if run.fit else f"({run.name})", run.max_tokens, run.precision.split(",")[0], run.kind]
        cells += [f"{sign}{run.hours:.3g}", *(f"{x:.2f}" for x in (hours.low, hours.likely, hours.high))]
        cells += [f"{math.exp(one.log_ratio):.2f}", f"{math.exp(other.log_ratio):.2f}"]
        print("| " + " | ".join(map(str, cells)) + " |")
    fitted = [out for out in alone if out.run.fit]
    inside = sum(out.hours.low <= out.run.hours <= out.hours.high for out in fitted)
    print(f"\n{inside} of the {len(fitted)} fitted runs lie within their 80 % interval.")
    for what, left in (("run", alone), ("author", authors)):
        print(f"Root mean square of ln(likely / stated), one {what} left out: {typical_error(left):.3f}", end="")
        print(f" (a factor of {math.exp(typical_error(left)):.2f}).")
    print("\n| rate | card | tokens/s | prompt tokens | of the data sheet | fitted |\n|---|---|---|---|---|---|")
    for rate in runs.rates:
        card = f"{rate.gpus} x {rate.card.split(',')[0]}"
        cells = [rate.name, card, f"{rate.tokens_per_second:,.0f}", f"{rate.prompt_tokens:,}", f"{rate.share:.0%}"]
        print("| " + " | ".join([*cells, "yes" if rate.fit else f"no: {rate.why}"]) + " |")
    print()
    fit = published_rates()
    for index, (name, unit) in enumerate(
        (("matmul TFLOP/s a T4", 1e12), ("attention TFLOP/s a T4", 1e12), ("submission factor", 1))
    ):
        rate = fit.rate(index)
        print(f"- {name}: {rate.likely / unit:.3g} ({rate.low / unit:.3g} to {rate.high / unit:.3g})")


def hours(lengths: Path) -> None:
    """25,000 rows of each variant of the large entries on two T4s."""
    print("| entry | variant | M tokens | interactive h: low | likely | high | submitted h: low | likely | high |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in ENTRIES:
        entry = load_entry(name)
        for found in forecast(entry, load_target("t4x2"), file_of(entry, lengths, COMPETITION_ROWS, None), []):
            if found.variant.order == "ab" and found.submission_seconds:
                cells = [name, found.variant.slug, f"{found.tokens / 1e6:.1f}", *in_hours(found.seconds)]
                print("| " + " | ".join([*cells, *in_hours(found.submission_seconds)]) + " |")


def forms(lengths: Path) -> None:
    """25,000 rows of the large entries on two T4s, in each form that fits them: against AWQ, and as a submission."""
    print("| entry | form | variant | interactive h: low | likely | high | of AWQ | submitted h: low | likely | high |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    target = load_target("t4x2")
    for name in ENTRIES:
        awq: dict[str, float] = {}
        for form in ("awq", "w4a8", "int8"):
            entry = override(load_entry(name), [f"quantize.scheme={form}"])
            if any(f.verdict == "fail" for f in check_entry(entry, target)):
                print(f"| {name} | {form} | does not fit | | | | | | | |")
                continue
            for found in forecast(entry, target, file_of(entry, lengths, COMPETITION_ROWS, None), []):
                slug = found.variant.slug
                if found.variant.order == "ab" and found.submission_seconds:
                    awq.setdefault(slug, found.seconds.likely)
                    cells = [name, form, slug, *in_hours(found.seconds), f"{found.seconds.likely / awq[slug]:.2f}"]
                    print("| " + " | ".join([*cells, *in_hours(found.submission_seconds)]) + " |")


def in_hours(seconds: Interval) -> list[str]:
    return [f"{value / 3600:.1f}" for value in (seconds.low, seconds.likely, seconds.high)]


def held_out(folders: Sequence[Path]) -> None:
    """Fitted to the shorter chunks, the longer ones predicted, and the other way round."""
    print("| chunks | fitted to | tokens a row | predicted | tokens a row | error | interval | inside | plain least squares |")
    print("|---|---|---|---|---|---|---|---|---|")
    for folder in folders:
        pieces = [Piece(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]
        pieces.sort(key=lambda p: p.tokens / p.rows)
        third = max(1, len(pieces) // 3)
        for name, fitted, kept in (
            ("shorter two thirds", pieces[:-third], pieces[-third:]),
            ("longer two thirds", pieces[third:], pieces[:third]),
        ):
            print("| " + " | ".join([f"{folder.parent.name}, {len(pieces)}", name, *compare(fitted, kept)]) + " |")


def compare(fitted: Sequence[Piece], kept: Sequence[Piece]) -> list[str]:
    """Cells of one comparison."""
    truth, found = sum(p.seconds for p in kept), predict(fitted, kept)
    plain = float(arrays_of(kept)[0].sum(axis=0) @ plain_terms(fitted))
    mean: Callable[[Sequence[Piece]], str] = lambda ps: f"{sum(p.tokens for p in ps) / sum(p.rows for p in ps):.0f}"  # noqa: E731
    return [
        *(mean(fitted), f"{truth:.3g} s", mean(kept), f"{found.likely / truth - 1:+.1%}"),
        *(
            f"{found.low / truth - 1:+.0%} to {found.high / truth - 1:+.0%}",
            "yes" if found.low <= truth <= found.high else "no",
        ),
        f"{plain / truth - 1:+.1%}",
    ]


def predict(fitted: Sequence[Piece], kept: Sequence[Piece]) -> Interval:
    """Seconds of the pieces that were kept, by the cost model fitted to the others, loading left out."""
    cost: Cost = fit_cost(fitted, load_seconds=0, target="cpu", machine="", gpus=0)
    totals, draws = arrays_of(kept)[0].sum(axis=0), draws_of(cost)
    likely = float(totals @ [cost.seconds_per_row, cost.seconds_per_token, cost.seconds_per_token_sq])
    drawn = (draws.terms @ totals) * np.exp(draws.noise / math.sqrt(max(1.0, likely / draws.piece_seconds)))
    low, high = np.quantile(drawn, [0.1, 0.9])
    return Interval(low=min(low, likely), likely=likely, high=max(high, likely))


def plain_terms(pieces: Sequence[Piece]) -> np.ndarray:
    """What least squares give without knowing that prefill goes by tokens: the model before intervals."""
    from scipy.optimize import nnls

    design, seconds = arrays_of(pieces)
    scale = np.maximum(design.max(axis=0), 1.0)
    terms: np.ndarray = nnls(design / scale / seconds[:, None], np.ones(len(seconds)))[0] / scale
    return terms * (seconds.sum() / (design @ terms).sum())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["published"]:
            published()
        case ["hours", lengths]:
            hours(Path(lengths))
        case ["forms", lengths]:
            forms(Path(lengths))
        case ["held-out", *folders] if folders:
            held_out([Path(folder) for folder in folders])
        case _:
            sys.exit(__doc__)
