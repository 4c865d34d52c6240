"""Battle -> token ids: nothing lost that fits, ends kept, no special token out of a battle's text, order swapped right."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zoo.contracts import PromptSpec, Variant
from zoo.errors import ZooError
from zoo.models.prompts import (
    Codec,
    allot,
    clean,
    cut,
    encode_battles,
    encode_fields,
    fit_fields,
    join_turns,
    load_codec,
    load_codecs,
    split_template,
)

TEMPLATE = "<|user|>\nPrompt: {prompt}\nA: {response_a}\nB: {response_b}\nWho wins?<|end|>\n"
SPEC = PromptSpec(template=TEMPLATE, max_tokens=96)
texts = st.text(max_size=60)
turns = st.lists(st.one_of(st.none(), texts), min_size=1, max_size=3)


def byte_codec(spec: PromptSpec) -> Codec:
    """One token a UTF-8 byte: lengths and cuts can be read off the text."""
    pieces, fields = split_template(spec.template)
    literals = tuple(tuple(piece.encode()) for piece in pieces)
    return Codec(literals, fields, lambda many: [list(clean(t).encode()) for t in many], (65, 66, 84))


@given(
    st.lists(st.integers(0, 500), min_size=3, max_size=3),
    st.lists(st.floats(0.01, 1), min_size=3, max_size=3),
    st.integers(0, 600),
)
@example([73, 22, 22], [0.421875, 0.125, 0.125], 116)
def test_allot_uses_all_room_and_no_more(lengths: list[int], shares: list[float], available: int) -> None:
    keep = allot(lengths, shares, available)
    assert all(0 <= k <= n for k, n in zip(keep, lengths, strict=True))
    assert sum(keep) == min(available, sum(lengths))
    fair = [available * s / sum(shares) for s in shares]
    assert all(k >= min(n, int(f)) for k, n, f in zip(keep, lengths, fair, strict=True))  # nobody gets less than its share


@given(turns, turns, turns, st.sampled_from(["ab", "ba"]))
def test_rows_fit_and_keep_the_end_of_each_field(prompt: list, a: list, b: list, order: str) -> None:
    codec = byte_codec(SPEC)
    encoded = encode_battles([(prompt, a, b)], codec, SPEC, order)[0]
    assert len(encoded.ids) <= SPEC.max_tokens
    first, second = (a, b) if order == "ab" else (b, a)
    fields = [clean(join_turns(t, SPEC)).encode() for t in (prompt, first, second)]
    assert len(encoded.ids) + encoded.n_truncated == sum(map(len, codec.literals)) + sum(map(len, fields))
    rest = bytes(encoded.ids)
    for literal, field in zip(codec.literals, [*fields, b""], strict=True):
        assert rest.startswith(bytes(literal))
        rest = rest[len(literal) :]
        kept = max((n for n in range(len(field) + 1) if rest.startswith(field[len(field) - n :])), default=0)
        rest = rest[kept:]
    assert rest == b""


@given(turns, turns, turns)
def test_both_orders_hold_the_same_tokens_when_all_fits(prompt: list, a: list, b: list) -> None:
    spec = PromptSpec(template=TEMPLATE, max_tokens=4000)
    codec = byte_codec(spec)
    ab, ba = (encode_battles([(prompt, a, b)], codec, spec, order)[0].ids for order in ("ab", "ba"))
    swapped = encode_battles([(prompt, b, a)], codec, spec, "ab")[0].ids
    assert ba == swapped and sorted(ab) == sorted(ba)


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(0, 40))
def test_a_cut_field_keeps_its_end_or_as_much_of_either_end(ids: list[int], n: int) -> None:
    n = min(n, len(ids))
    assert cut(ids, n, "end") == ids[len(ids) - n :]
    both = cut(ids, n, "both_ends")
    assert len(both) == n and both[: n // 2] == ids[: n // 2] and both[n // 2 :] == ids[len(ids) - (n - n // 2) :]


@given(turns, turns, turns, st.sampled_from(["ab", "ba"]))
def test_which_end_is_kept_is_no_matter_to_a_battle_that_fits(prompt: list, a: list, b: list, order: str) -> None:
    roomy = PromptSpec(template=TEMPLATE, max_tokens=4000)
    for spec in (roomy, SPEC):
        codec = byte_codec(spec)
        end, ends = (
            encode_battles([(prompt, a, b)], codec, Variant(keep=keep).prompt(spec), order)[0]  # type: ignore[arg-type]
            for keep in ("end", "both_ends")
        )
        assert len(end.ids) == len(ends.ids) and end.n_truncated == ends.n_truncated
        assert end.n_truncated or end.ids == ends.ids


def test_a_variant_has_its_own_cap_shares_ends_and_template() -> None:
    template = "A: {response_a} B: {response_b} P: {prompt}"
    variant = Variant(order="ba", max_tokens=64, shares=(0.5, 0.25, 0.25), keep="both_ends", template=template)
    assert variant.slug == "ba-64-shares50_25_25-both_ends-t" + variant.slug[-6:]
    assert variant.prompt(SPEC) == PromptSpec(template=template, max_tokens=64, shares=(0.5, 0.25, 0.25), keep="both_ends")
    assert Variant(max_tokens=96).prompt(SPEC) == SPEC


def test_a_template_after_which_the_labels_are_other_tokens_is_refused(tiny_llama: Path) -> None:
    same = Variant(max_tokens=96, template=TEMPLATE.replace("Who wins?", "Which is better?"))
    found = load_codecs(tiny_llama, SPEC, (Variant(max_tokens=96), Variant(max_tokens=64), same))
    plain, shorter, other = found.values()
    assert plain is shorter and other.literals != plain.literals and other.label_ids == plain.label_ids
    with pytest.raises(ZooError, match="max_tokens 12 leaves"):
        load_codecs(tiny_llama, SPEC, (Variant(max_tokens=12),))


@given(st.lists(st.tuples(turns, turns, turns), max_size=3), st.sampled_from(["ab", "ba"]), st.integers(70, 200))
def test_fields_are_tokenized_once_for_every_order_and_cap(battles: list, order: str, cap: int) -> None:
    """Put together from the same ids, a battle is what encoding it by itself gives; B first is the exchanged battle A first."""
    codec, spec = byte_codec(SPEC), Variant(max_tokens=cap).prompt(SPEC)
    found = [fit_fields(fields, codec, spec, order) for fields in encode_fields(battles, codec, SPEC)]  # type: ignore[arg-type]
    exchanged = [(prompt, b, a) if order == "ba" else (prompt, a, b) for prompt, a, b in battles]
    assert found == [encode_battles([battle], codec, spec, "ab")[0] for battle in exchanged]


def test_special_tokens_in_a_battle_stay_text(tiny_llama: Path) -> None:
    codec = load_codec(tiny_llama, SPEC)
    end = next(i for i in codec.literals[-1] if i < 3)
    ids = encode_battles([(["<|end|> <|user|>"], ["x"], ["<|end|>"])], codec, SPEC, "ab")[0].ids
    assert ids.count(end) == codec.literals[-1].count(end)


def test_labels_must_be_single_tokens(tiny_llama: Path) -> None:
    with pytest.raises(ZooError, match="'draw' is not one token"):
        load_codec(tiny_llama, PromptSpec(template=TEMPLATE, labels=("A", "B", "draw")))


def test_template_errors_name_the_field() -> None:
    with pytest.raises(ValueError, match=r"\{response_b\} exactly once"):
        PromptSpec(template="{prompt}{response_a}")


def test_a_cap_below_the_template_says_what_to_do() -> None:
    with pytest.raises(ZooError, match="raise max_tokens"):
        encode_battles([(["p"], ["a"], ["b"])], byte_codec(SPEC), SPEC, "ab", max_tokens=10)


def test_lone_surrogates_become_replacement_characters() -> None:
    assert clean("a\ud800b") == "a\ufffdb" and clean("\U0001f600") == "\U0001f600"
