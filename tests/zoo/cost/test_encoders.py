"""An encoder's operations and forecasts, against torch's own count and submissions that people told of."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.tiny_encoders import CONFIGS
from zoo.checks import check_entry, entry_shape
from zoo.contracts import Entry, Variant, changed
from zoo.cost.forecast import forecasts_of
from zoo.cost.lengths import File
from zoo.cost.published import load_published
from zoo.entries.load import load_entry
from zoo.models.shapes import Flops, flops_of_shape, shape_of_config
from zoo.targets import load_target

TYPES = {"DebertaV2": "deberta-v2", "ModernBert": "modernbert", "Bert": "bert", "Roberta": "roberta"}
DECLARED = ("deberta-v3-base", "deberta-v3-large", "modernbert-base", "modernbert-large")


def counted(family: str, tokens: int) -> float:
    """Operations of one row by torch's own count of matrix products."""
    import torch
    import transformers
    from torch.utils.flop_counter import FlopCounterMode

    config = getattr(transformers, f"{family}Config")(vocab_size=320, num_labels=3, **CONFIGS[family])
    model = getattr(transformers, f"{family}ForSequenceClassification")._from_config(config, attn_implementation="eager").eval()
    ids = torch.ones(1, tokens, dtype=torch.long)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    return float(counter.get_total_flops())


def of_row(flops: Flops, tokens: int) -> float:
    return float(flops.split(np.array([1.0, tokens, tokens**2])).sum())


@pytest.mark.parametrize("family", ["Bert", "Roberta", "ModernBert", "DebertaV2"])
def test_operations_are_those_that_torch_counts(family: str) -> None:
    """Their growth with a row's length; DeBERTa's projections of distances, the same for every row, are left out."""
    config = {**CONFIGS[family], "model_type": TYPES[family], "vocab_size": 320}
    shape = changed(shape_of_config(config), classes=3)
    assert shape.encoder == family
    flops = flops_of_shape(shape)
    for shorter, longer in ((40, 80), (80, 150)):
        theirs = counted(family, longer) - counted(family, shorter)
        assert of_row(flops, longer) - of_row(flops, shorter) == pytest.approx(theirs, rel=0.01)


@pytest.mark.parametrize("name", DECLARED)
def test_a_declared_encoder_has_the_parameters_that_transformers_counts_for_its_shape(name: str) -> None:
    import torch
    import transformers

    entry = load_entry(name)
    assert entry.base is not None and entry.shape is not None
    family = entry.base.architecture.removesuffix("ForSequenceClassification")
    sizes = entry.shape.model_dump(exclude_none=True, exclude={"num_key_value_heads", "head_dim", "tie_word_embeddings"})
    special = {key: value for key, value in CONFIGS[family].items() if key not in sizes and key != "pooler_hidden_size"}
    if family == "DebertaV2":
        special["pooler_hidden_size"] = sizes["hidden_size"]
    with torch.device("meta"):
        config = getattr(transformers, f"{family}Config")(**{**special, **sizes}, num_labels=3)
        model = getattr(transformers, entry.base.architecture)(config)
    assert sum(p.numel() for p in model.parameters()) == entry.base.parameters


@pytest.mark.parametrize("name", DECLARED)
def test_a_declared_encoder_fits_two_t4s_and_trains_there(name: str) -> None:
    findings = check_entry(load_entry(name), load_target("t4x2"), train=True)
    assert not [f for f in findings if f.verdict == "fail"], findings
    assert {"head", "dtype", "context", "memory, replicas", "training memory"} <= {f.check for f in findings}


def submission(entry: Entry, cap: int) -> tuple[float, float]:
    """Low and high hours of 25,000 rows like the competition's on two T4s as a submission."""
    variant, target = Variant(max_tokens=cap), load_target("t4x2")
    lengths = np.minimum(load_published().lengths.tokens(), cap)
    (found,) = forecasts_of(entry, variant, target, File(25_000, {variant: lengths}, ()), [])
    assert found.submission_seconds is not None and found.peak_bytes is not None
    assert any("16-bit products of transformers" in line for line in found.assumed)
    return found.submission_seconds.low / 3600, found.submission_seconds.high / 3600


def test_forecasts_hold_what_is_known_of_submissions() -> None:
    """Oracle: two submissions of DeBERTa on two T4s, base in less than 1 hour, large with 1,800 tokens in about 1.5."""
    assert submission(load_entry("deberta-v3-base"), 512)[0] < 1
    low, high = submission(load_entry("deberta-v3-large"), 1800)
    assert low < 1.5 < high


def test_checks_of_an_encoder_name_what_does_not_hold() -> None:
    entry, target = load_entry("deberta-v3-base"), load_target("t4x2")
    assert entry.score is not None and entry.prompt is not None and entry.base is not None and entry.shape is not None
    wide = changed(entry, score=changed(entry.score, dtype="bfloat16"))
    assert [f.check for f in check_entry(wide, target) if f.verdict == "fail"] == ["dtype"]
    long = changed(entry.prompt, max_tokens=600)
    assert not [f for f in check_entry(changed(entry, prompt=long), target) if f.verdict == "fail"]
    bert = changed(
        entry,
        prompt=long,
        base=changed(entry.base, architecture="BertForSequenceClassification"),
        shape=changed(entry.shape, position_buckets=None),
    )
    assert [f.check for f in check_entry(bert, target) if f.verdict == "fail"] == ["context"]
    shape = entry_shape(bert)
    assert shape is not None and shape.encoder == "Bert" and shape.classes == 3
