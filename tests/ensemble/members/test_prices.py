"""Members without a machine: forecast, as an entry's, or by hand; the rest is left out and told how to price it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ensemble.budget.margin import choose_margin, forecast_factors
from ensemble.members.gather import align
from ensemble.members.prices import PriceList
from ensemble.search.build import build_plan
from ensemble.search.decide import BuildRequest, SearchLimits
from tests.ensemble.members.test_members import odds, table, write_battles
from zoo.contracts import Cost, Foretold, Held, Input, LexicalScoreRequest, ScoreRequest, ScoreSpec, ServeSpec, Variant
from zoo.cost.basis import copies_of
from zoo.cost.elsewhere import foretold
from zoo.cost.fit import row_seconds
from zoo.cost.forecast import forecasts_of
from zoo.cost.lengths import File
from zoo.entries.load import load_variant
from zoo.errors import ZooError
from zoo.pipeline.members import Table
from zoo.targets import load_target

T4X2 = load_target("t4x2")


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def battles(tmp_path_factory) -> Path:
    return write_battles(tmp_path_factory.mktemp("data") / "battles.csv")


def elsewhere(name: str, battles: Path, seed: int, *, entry: str = "", variant: Variant | None = None) -> Table:
    """A table of the zoo's own, of an entry that was scored on an H200; without `entry` one that was imported for it."""
    made = table(name, battles, odds(seed), target="h200")
    if not entry:
        return made
    given = Input(fingerprint="any")
    request = LexicalScoreRequest(entry=entry, model=given, battles=given, target="h200")
    facts = {"entry": entry, "request": request, "variant": variant or load_variant(entry)[1]}
    return replace(made, card=made.card.model_copy(update=facts))


def unpriced(name: str, battles: Path, seed: int, like: str = "") -> Table:
    """An imported table without a price and without tokens."""
    made = table(name, battles, odds(seed))
    cost = Cost(target="t4x2", load_seconds=0.0, like=like, priced=False)
    return replace(made, card=made.card.model_copy(update={"cost": cost}), frame=made.frame.assign(n_tokens=0))


def seconds(cost: Cost, tokens: np.ndarray, rows: int = 25_000) -> float:
    work: float = rows * float(row_seconds(cost, tokens).mean())
    return cost.load_seconds + work / copies_of(cost, T4X2)


@pytest.mark.parametrize("text", ["llama-3-8b@ab-2048", "gemma-2-9b@ab-1024", "yi-34b@ab-768"])
def test_a_forecasts_cost_gives_its_likely_seconds(text: str) -> None:
    entry, variant = load_variant(text)
    lengths = np.random.default_rng(1).integers(50, 1500, 300).astype(float)
    for target in ("t4x2", "l4x2", "h200"):
        machine = load_target(target)
        (found,) = forecasts_of(entry, variant, machine, File(25_000, {variant: lengths}, ()), [])
        cost = foretold(found)
        work = 25_000 * float(row_seconds(cost, lengths).mean()) / copies_of(cost, machine)
        assert cost.load_seconds + work == pytest.approx(found.seconds.likely, rel=1e-9)
        assert cost.forecast and cost.forecast.low < 1 < cost.forecast.high and cost.target == target


def test_scored_elsewhere_is_forecast_and_measured_there_is_taken_as_it_is(battles: Path) -> None:
    own = table("own", battles, odds(1))
    tables = [own, elsewhere("llama", battles, 2, entry="llama-3-8b"), elsewhere("own", battles, 3, entry="llama-3-8b")]
    members = align(tables, prices=PriceList(T4X2, 25_000), battles=battles)
    assert members.names == ("llama", "own")
    llama, measured = members.costs
    assert measured == own.card.cost and measured.forecast is None
    assert llama.target == "t4x2" and llama.forecast and llama.forecast.as_entry == "llama-3-8b@ab-2048"
    assert llama.seconds_per_token > 0, "its table knows tokens"
    assert set(members.left_out) == {"own (own)"}


def test_what_was_scored_elsewhere_serves_as_the_entry_does_on_the_target(battles: Path) -> None:
    """Plans hand on the request: two T4s have no bfloat16, and no card of theirs holds 34 billion parameters."""
    entry, variant = load_variant("yi-34b@ab-768")
    assert entry.prompt and entry.score
    given = Input(fingerprint="any")
    request = ScoreRequest(
        entry="yi-34b",
        model=given,
        battles=given,
        held=Held(n_folds=5, fold=0),
        prompt=entry.prompt,
        spec=ScoreSpec(variants=(variant,)),
        serve=ServeSpec(dtype="bfloat16"),
        target="h200",
        emulates="t4x2",
    )
    made = table("yi", battles, odds(1), target="h200")
    facts = {"entry": "yi-34b", "request": request, "variant": variant, "emulates": "t4x2"}
    scored = replace(made, card=made.card.model_copy(update=facts))
    left_out: dict[str, str] = {}
    (moved,) = PriceList(T4X2, 25_000).priced([scored], left_out)
    asked = moved.card.request
    assert isinstance(asked, ScoreRequest) and not left_out
    assert (asked.target, asked.emulates, asked.serve) == ("t4x2", None, entry.serve["t4x2"])
    assert asked.spec == request.spec and moved.card.checkpoint == scored.card.checkpoint
    assert (moved.card.target, moved.card.emulates, moved.card.cost.gpus) == ("t4x2", None, 2)


def test_an_entry_that_does_not_fit_is_left_out_with_the_checks_reason(battles: Path) -> None:
    tables = [table("own", battles, odds(1)), elsewhere("yi", battles, 2, entry="yi-34b")]
    members = align(tables, prices=PriceList(load_target("t4"), 25_000, like={"own": "llama-3-8b"}), battles=battles)
    assert members.names == ("own",)
    assert "yi-34b does not fit t4: memory, replicas: 21.5 to load" in members.left_out["yi"]


def test_what_nobody_can_price_is_left_out_with_how_to_price_it(battles: Path) -> None:
    tables = [table("own", battles, odds(1)), unpriced("theirs", battles, 2), elsewhere("declared", battles, 3)]
    members = align(tables, prices=PriceList(T4X2, 25_000), battles=battles)
    assert members.names == ("own",)
    mend = "price it with --seconds {0}=SECONDS or --like {0}=ENTRY[@VARIANT]"
    assert members.left_out["theirs"] == f"nobody has said what it costs; {mend.format('theirs')}"
    assert members.left_out["declared"] == f"its cost was declared for h200, not for t4x2; {mend.format('declared')}"
    with pytest.raises(ZooError, match=r"no member has a cost on target t4x2 \(theirs: nobody has said") as error:
        align(tables[1:2], prices=PriceList(T4X2, 25_000), battles=battles)
    assert "\n" not in str(error.value)


def test_prices_by_hand_and_alike(battles: Path) -> None:
    tables = [
        unpriced("a", battles, 1),
        unpriced("b", battles, 2, like="llama-3-8b"),
        unpriced("c", battles, 3),
        elsewhere("d", battles, 4),
    ]
    prices = PriceList(T4X2, 1000, {"a": 500.0, "d": 90.0}, {"c": "gemma-2-9b@ab-1024", "b": "yi-34b"})
    members = align(tables, prices=prices, battles=battles)
    a, b, c, d = members.costs
    assert seconds(a, members.tokens[0], 1000) == pytest.approx(500) and a.gpus == 2 and a.forecast is None
    assert seconds(d, members.tokens[3], 1000) == pytest.approx(90)
    assert [cost.forecast and cost.forecast.as_entry for cost in (b, c)] == ["yi-34b@ab-1024", "gemma-2-9b@ab-1024"]
    assert (b.gpus, c.gpus) == (2, 1), "the layouts that the entries serve in"
    longer = members.characters.argmax()
    assert members.tokens[2, longer] == members.tokens[2].max() > 0, "tokens by the rows' characters"


def test_without_texts_a_mean_row_of_the_competitions_length_is_priced(battles: Path, tmp_path: Path) -> None:
    alike = unpriced("b", battles, 2, like="llama-3-8b")
    winners = tmp_path / "winners.csv"
    lines = [line.split(",") for line in battles.read_text().splitlines()]
    winners.write_text("\n".join(",".join([line[0], *line[-3:]]) for line in lines) + "\n")
    from zoo.data.battles import labels_digest, read_battles

    bare = replace(alike, card=alike.card.model_copy(update={"dataset_digest": labels_digest(read_battles(battles))}))
    members = align([bare, replace(bare, frame=bare.frame)][:1], prices=PriceList(T4X2, 25_000), battles=winners)
    (cost,) = members.costs
    assert cost.seconds_per_token == 0 and not members.tokens.any()
    assert 1.5 * 3600 < seconds(cost, members.tokens[0]) < 3 * 3600, "`zoo cost llama-3-8b` says 2.17 h"


@pytest.mark.parametrize(
    ("prices", "text"),
    [
        ({"seconds": {"nobody": 1.0}}, "--seconds nobody=...: no member is called that; there are own"),
        ({"like": {"nobody": "llama-3-8b"}}, "--like nobody=...: no member"),
        ({"like": {"own": "llama-3-8"}}, "did you mean 'llama-3-8b'"),
        ({"like": {"own": "llama-3-8b"}, "seconds": {"own": 1.0}}, "own: has two prices"),
    ],
)
def test_prices_that_cannot_be_meant(battles: Path, prices: dict, text: str) -> None:
    with pytest.raises(ZooError, match=text):
        align([table("own", battles, odds(1))], prices=PriceList(T4X2, 25_000, **prices), battles=battles)


def test_the_margin_of_a_plan_covers_the_upper_ends_of_its_own_forecasts_alone(battles: Path) -> None:
    tables = [table("own", battles, odds(1)), unpriced("wide", battles, 2, like="smollm2-135m")]
    members = align(tables, prices=PriceList(T4X2, 25_000), battles=battles)
    request = BuildRequest(T4X2, 9 * 3600.0, 25_000, limits=SearchLimits(0))
    plan = build_plan(members, request)
    used = {member.name: member for member in plan.members}
    assert plan.predicted_seconds * plan.margin <= plan.budget_seconds * (1 + 1e-9)
    if "wide" in used:
        assert plan.margin > T4X2.margin and "wide" in plan.margin_reason
    else:
        assert plan.margin == T4X2.margin
    alone = build_plan(members.subset([members.names.index("wide")]), request)
    (member,) = alone.members
    assert member.cost.forecast and member.cost.forecast.high_submitted
    work = alone.predicted_seconds - alone.overhead_seconds
    bad = alone.overhead_seconds + work * member.cost.forecast.high_submitted / T4X2.margin
    assert alone.predicted_seconds * alone.margin == pytest.approx(T4X2.margin * bad)
    asked = build_plan(members.subset([members.names.index("wide")]), replace(request, margin=1.2))
    assert asked.margin == 1.2, "the user's own number stands"


def test_forecast_factors() -> None:
    plain = Cost(target="t4x2", load_seconds=1.0)
    mark = Foretold(as_entry="e@ab", basis="published", low=0.5, high=2.0)
    some = plain.model_copy(update={"forecast": mark})
    submitted = plain.model_copy(update={"forecast": mark.model_copy(update={"high_submitted": 3.0})})
    factors = forecast_factors(T4X2, [plain, some, submitted])
    apart = np.exp(np.hypot(np.log(1.5), np.log(2.0))) / 1.5
    np.testing.assert_allclose(factors, [1.0, apart, 2.0])
    assert (forecast_factors(T4X2, [plain, submitted], given=1.3) == 1).all()
    assert choose_margin(T4X2, [plain, some])[0] == T4X2.margin
