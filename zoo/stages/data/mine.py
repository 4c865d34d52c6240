"""The mine stage: pairs of different models' answers to one prompt, from logs.

A log is read three times and never held: first who answered which prompt, then the prompts that several models have answered,
then the answers that were chosen.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from zoo.contracts import Input, Log, Measurements, MineRequest, StageResult, inputs_of
from zoo.data.keys import prompt_texts, turns_key
from zoo.data.languages import UNDETERMINED, in_another, language_of_turns
from zoo.data.logs import Conversation, Unusable, read_log
from zoo.data.made import PAIRS, REPORT, STATUS, UNLABELLED, write_pairs
from zoo.data.masks import asked_in, nearest, why_masked
from zoo.data.pairing import Choice, choose, possible_pairs
from zoo.data.preferences import read_preferences
from zoo.data.splits import NEAR_PROMPTS, group_hashes
from zoo.data.tally import Tally
from zoo.errors import ZooError
from zoo.scores.metric_names import MADE_ROWS
from zoo.stages import progress
from zoo.store import write_atomic
from zoo.targets import process_age_seconds

ROWS, PROMPTS, PAIRS_OF = "conversations", "prompts", "pairs"
DOUBLED, AGAIN = "a doubled conversation_id", "a model's second answer to the prompt"
ALONE, IDENTICAL, NONE_DIFFER = "one model alone", "identical answers", "all answers identical"
ANOTHER_LANGUAGE = "in a language that --language has not"
NOT_JUDGED, UNJUDGED = "no pair that --judged has", "not in --judged"


class Answer(NamedTuple):
    """A model's answer to a prompt, without its text.

    The model's number, what tells the text apart, log and row that it is in, and the conversation's id.
    """

    model: int
    text: int
    log: int
    row: int
    id: str


@dataclass
class Index:
    """Who answered which prompt: answers by the prompt's key, and the models by number."""

    prompts: dict[bytes, list[Answer]] = field(default_factory=dict)
    models: dict[str, int] = field(default_factory=dict)
    read: int = 0


@dataclass(frozen=True)
class Prompt:
    """A prompt that may give pairs.

    Its turns, its answers, the hash of its near-duplicate group, and its language.
    """

    asked: list[str]
    answers: list[Answer]
    group: int = 0
    language: str = UNDETERMINED


def run(request: MineRequest, out_dir: Path) -> StageResult:
    """Write `pairs.parquet` and `report.json`."""
    load_seconds, started = process_age_seconds(), time.monotonic()
    tally, seconds = Tally(), dict[str, float]()
    with _timed(seconds, "read"):  # the log last: it takes minutes, and what is wrong with the other files is told at once
        never, judged = asked_in([given.path for given in request.never]), _judged(request.judged)
        index = read_index(request, tally)
    with _timed(seconds, "prompts"):
        prompts = usable_prompts(request, index, never, tally)
    with _timed(seconds, "choose"):
        pairs = _pairs(prompts, judged, tally)
        with progress.bar(None, "choose", "pair") as bar:
            models = [np.array([answer.model for answer in prompt.answers], dtype=np.int64) for prompt in prompts]
            limits: dict[str, Any] = {"rows": request.rows, "per_prompt": request.per_prompt, "seed": request.seed}
            choice = choose(models, pairs, told=bar.update, **limits)
    if not len(choice.prompts):
        told = ", ".join(f"{each['count']:,} {each['what']}: {each['reason']}" for each in tally.records())
        raise ZooError(f"no pair in {index.read:,} conversations ({told}); give a log in which models answer the same prompts")
    possible = sum(map(len, pairs))
    tally.add(PAIRS_OF, f"not taken: {choice.ended_by} ended it", count=possible - len(choice.prompts))
    with _timed(seconds, "write"):
        write_pairs(out_dir / PAIRS, _records(request, prompts, choice))
    report = {
        "stage": request.stage,
        "conversations": index.read,
        "counts": tally.records(),
        **_totals(index, prompts, pairs, choice),
        **_facts(request, prompts, choice, index),
        "nearest_kept": _nearest(prompts, choice, never),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }
    write_atomic(out_dir / REPORT, json.dumps(report, indent=1, ensure_ascii=False))
    measured = Measurements(load_seconds=load_seconds, run_seconds=time.monotonic() - started, rows=len(choice.prompts))
    return StageResult(metrics={MADE_ROWS: float(len(choice.prompts))}, measurements=measured)


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[step] = time.monotonic() - started


def read_index(request: MineRequest, tally: Tally) -> Index:
    """Who answered which prompt in all logs; rows that are not used are counted by reason.

    ZooError where conversations have no licence.
    """
    index, ids, bare = Index(), set[str](), Counter[str]()
    with progress.bar(None, "read", "conversation") as bar:
        for number, log in enumerate(request.logs):
            for row in read_log(log.file.path, request.most_characters):
                index.read += 1
                bar.update()
                place = f"{log.file.path.name}:{row.row}"
                if isinstance(row, Unusable):
                    tally.add(ROWS, row.reason, f"{place} {row.detail}".strip())
                elif row.id in ids:
                    tally.add(ROWS, DOUBLED, f"{place} {row.id}")
                else:
                    ids.add(row.id)
                    bare[row.source or log.source] += not (row.licence or log.licence)
                    _enter(index, row, number, tally, place)
    if missing := [source for source, count in bare.items() if count]:
        rows, first = bare.total(), missing[0]
        raise ZooError(
            f"{rows:,} conversations of {', '.join(missing[:5])} have no licence; say under which they may be used, as "
            f"--licence CC-BY-4.0 (or give the rows a column licence), first of {first}"
        )
    return index


def _enter(index: Index, row: Conversation, log: int, tally: Tally, place: str) -> None:
    model = index.models.setdefault(row.model, len(index.models))
    answers = index.prompts.setdefault(hashlib.sha256(turns_key(row.asked).encode()).digest()[:16], [])
    if any(answer.model == model for answer in answers):
        tally.add(ROWS, AGAIN, f"{place} {row.id}")
        return
    text = int.from_bytes(hashlib.sha256(turns_key(row.answered).encode()).digest()[:8], "big", signed=True)
    answers.append(Answer(model, text, log, row.row, row.id))


def usable_prompts(request: MineRequest, index: Index, never: set[str], tally: Tally) -> list[Prompt]:
    """Prompts that several models have answered and that are not asked in `never`.

    Near-duplicate groups are those of all prompts that several models have answered.
    """
    several = [answers for answers in index.prompts.values() if len(answers) > 1]
    tally.add(PROMPTS, ALONE, count=len(index.prompts) - len(several))
    progress.note(f"{index.read:,} conversations; {len(several):,} of {len(index.prompts):,} prompts have several models")
    found = _conversations(request.logs, {(answers[0].log, answers[0].row) for answers in several}, request.most_characters)
    asked = [found[answers[0].log, answers[0].row].asked for answers in several]
    groups = group_hashes(pd.DataFrame({"prompt": pd.Series(asked, dtype=object)}), NEAR_PROMPTS, progress.note)
    prompts = []
    for turns, answers, group, reason in zip(asked, several, groups.tolist(), why_masked(asked, never), strict=True):
        language = language_of_turns(turns)
        if request.languages and in_another(language, request.languages):
            reason = reason or ANOTHER_LANGUAGE
        if reason:
            tally.add(PROMPTS, reason, turns[0])
        else:
            prompts.append(Prompt(turns, answers, group, language))
    return prompts


def _conversations(
    logs: Sequence[Log], wanted: set[tuple[int, int]], most_characters: int
) -> dict[tuple[int, int], Conversation]:
    """Some of the logs' conversations by log and row."""
    found = {}
    for number, log in enumerate(logs):
        for row in read_log(log.file.path, most_characters):
            if (number, row.row) in wanted and isinstance(row, Conversation):
                found[number, row.row] = row
    return found


def _pairs(prompts: Sequence[Prompt], judged: set[frozenset[str]] | None, tally: Tally) -> list[np.ndarray]:
    """The places of the answers of each prompt that may be paired; of `judged` pairs alone, where there are such."""
    found = []
    for prompt in prompts:
        own = possible_pairs(np.array([answer.text for answer in prompt.answers], dtype=np.int64))
        count = len(prompt.answers) * (len(prompt.answers) - 1) // 2
        tally.add(PAIRS_OF, IDENTICAL, prompt.asked[0], count - len(own))
        if not len(own):
            tally.add(PROMPTS, NONE_DIFFER, prompt.asked[0])
        elif judged is not None:
            kept = [frozenset(prompt.answers[place].id for place in pair) in judged for pair in own.tolist()]
            tally.add(PAIRS_OF, UNJUDGED, prompt.asked[0], kept.count(False))
            own = own[np.array(kept, dtype=bool)]
            tally.add(PROMPTS, NOT_JUDGED, prompt.asked[0], int(not len(own)))
        found.append(own)
    return found


def _judged(files: Sequence[Input]) -> set[frozenset[str]] | None:
    if not files:
        return None
    tables = [read_preferences(given.path) for given in files]
    return {frozenset(pair) for table in tables for pair in zip(table["id_a"], table["id_b"], strict=True)}


def _records(request: MineRequest, prompts: Sequence[Prompt], choice: Choice) -> Iterator[dict[str, str]]:
    """The chosen pairs as rows of the file, in the order of choice."""
    chosen = _chosen(prompts, choice)
    found = _conversations(
        request.logs, {(answer.log, answer.row) for pair in chosen for answer in pair}, request.most_characters
    )
    with progress.bar(len(chosen), "write", "pair") as bar:
        for number, pair in zip(choice.prompts.tolist(), chosen, strict=True):
            a, b = (found[answer.log, answer.row] for answer in pair)
            log_a, log_b = (request.logs[answer.log] for answer in pair)
            yield {
                "id": pair_id(pair),
                "model_a": a.model,
                "model_b": b.model,
                "prompt": json.dumps(prompts[number].asked, ensure_ascii=False),
                "response_a": json.dumps(a.answered, ensure_ascii=False),
                "response_b": json.dumps(b.answered, ensure_ascii=False),
                "source": _both(a.source or log_a.source, b.source or log_b.source, "+"),
                "licence": _both(a.licence or log_a.licence or "", b.licence or log_b.licence or "", " AND "),
                "language": a.language or prompts[number].language,
                "prompt_group": f"{prompts[number].group:016x}",
                "generator_a": a.model,
                "generator_b": b.model,
                "log_id_a": a.id,
                "log_id_b": b.id,
                STATUS: UNLABELLED,
            }
            bar.update()


def _chosen(prompts: Sequence[Prompt], choice: Choice) -> list[list[Answer]]:
    """The answers of each chosen pair, A's first."""
    places = zip(choice.prompts.tolist(), choice.answers.tolist(), strict=True)
    return [[prompts[number].answers[place] for place in pair] for number, pair in places]


def pair_id(pair: Sequence[Answer]) -> str:
    """An id that two conversations have whichever is A and whatever else is chosen."""
    return "mined-" + hashlib.sha256("\0".join(sorted(answer.id for answer in pair)).encode()).hexdigest()[:16]


def _both(a: str, b: str, between: str) -> str:
    return a if a == b else between.join(sorted((a, b)))


def _totals(index: Index, prompts: Sequence[Prompt], pairs: Sequence[np.ndarray], choice: Choice) -> dict[str, Any]:
    """How many there were, and how many are used: what the counts by reason add up to."""
    each = [len(prompt.answers) for prompt in prompts]
    return {
        "totals": {
            ROWS: index.read,
            PROMPTS: len(index.prompts),
            PAIRS_OF: sum(count * (count - 1) // 2 for count in each),
        },
        "kept": {
            ROWS: sum(map(len, index.prompts.values())),
            PROMPTS: sum(len(own) > 0 for own in pairs),
            PAIRS_OF: len(choice.prompts),
        },
    }


def _facts(request: MineRequest, prompts: Sequence[Prompt], choice: Choice, index: Index) -> dict[str, Any]:
    """What was made, as numbers."""
    names = list(index.models)
    ends = [[names[answer.model] for answer in pair] for pair in _chosen(prompts, choice)]
    a, b = (Counter(pair[side] for pair in ends) for side in (0, 1))
    groups = {prompts[n].group for n in choice.prompts.tolist()}
    return {
        "rows": len(ends),
        "ended_by": choice.ended_by,
        "prompts": len(set(choice.prompts.tolist())),
        "prompt_groups": len(groups),
        "most_pairs_of_a_prompt": int(np.bincount(choice.prompts).max()),
        "models": {name: {"a": a[name], "b": b[name]} for name in sorted({*a, *b})},
        "largest_side_difference": max(abs(a[name] - b[name]) for name in {*a, *b}),
        "settings": {"rows": request.rows, "per_prompt": request.per_prompt, "seed": request.seed},
        "inputs": [{"file": given.path.name, "digest": given.fingerprint} for given in inputs_of(request)],
    }


def _nearest(prompts: Sequence[Prompt], choice: Choice, never: set[str]) -> list[dict[str, Any]]:
    kept = {text for number in set(choice.prompts.tolist()) for text in prompt_texts(prompts[number].asked)}
    return [asdict(pair) for pair in nearest(kept, never)] if never else []
