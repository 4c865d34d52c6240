"""The generate stage: a model's answers to prompts, turn by turn, never made twice.

This process tokenizes what is asked, hands conversations to the engines (each a process of its own, watched over as those that
score), and writes what comes back: finished answers go to files of `chunk_answers`. Answers that the store has already, of the
same model, settings, seed and words before, are taken from there.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from zoo.contracts import GenerateRequest, Measurements, StageResult
from zoo.data.prompts import Prompt, by_chance, choose, read_prompts
from zoo.entries.chat_format import chat_pieces
from zoo.errors import ZooError
from zoo.models.chat import Chat, context_ids, load_chat
from zoo.pipeline.runners.chosen import current_runner
from zoo.pipeline.runners.fleet import Fleet, Here, engine_fleet
from zoo.stages import progress
from zoo.stages.generate.answers import (
    CHUNKS,
    REUSED,
    Answer,
    Book,
    chunk_folder,
    earlier_files,
    ends,
    read_answers,
    write_answers,
)
from zoo.stages.generate.ceilings import Reach, rows_reached, spent_seconds, usable_before
from zoo.stages.generate.engine import COMMAND, GenerateJob, context_of, generate_job
from zoo.stages.generate.rows import ANSWERS, NO_TEMPLATE, TOO_LONG, Row, status_of, status_slug, write_rows
from zoo.stages.generate.work import AHEAD, CPU_AHEAD, ChunkWriter, Conversation, GenerateWork
from zoo.stages.score.engines import Crew, EngineError
from zoo.stages.score.tally import Tally, load_tally
from zoo.stages.score.vllm.engine import engine_version
from zoo.targets import only_gpus, visible_gpus

WORK = "work"  # what engines read as they start: not needed once the answers are there


@dataclass
class Run:
    """What the parts of a run share: what is asked, what is known, and where answers go."""

    request: GenerateRequest
    folder: Path
    chunks: Path
    conversations: list[Conversation]
    book: Book
    tally: Tally
    made_by: tuple[str, str]
    fleet: Fleet

    @property
    def todo(self) -> list[Conversation]:
        return [one for one in self.conversations if not is_over(one)]


def is_limited(request: GenerateRequest) -> bool:
    """Whether a ceiling may end it before its last row."""
    return request.accept is not None or request.gpu_hours is not None


def is_over(one: Conversation) -> bool:
    """Whether nothing more is to be answered."""
    return len(one.answers) == len(one.turns) or bool(one.answers and ends(one.answers[-1]))


def run(request: GenerateRequest, out_dir: Path) -> StageResult:
    """Write `answers.jsonl`, a row a prompt and seed.

    `chunks/` and `reused.parquet` hold every answer with its tokens, for requests to come.
    """
    if current_runner() == "slurm":
        raise ZooError("--runner slurm: answers are not shared out by leases; give --runner ray or local")
    with engine_fleet(1, None, out_dir) as fleet:
        if fleet is None:
            return generate(request, out_dir, tuple(only_gpus([gpu]) for gpu in visible_gpus()) or ({},))
        return generate(request, out_dir, ({},) * fleet.copies, fleet)


def generate(
    request: GenerateRequest, out_dir: Path, where: tuple[Mapping[str, str], ...], fleet: Fleet | None = None
) -> StageResult:
    """Generate with one engine in each of the places, given by the environment of its process, on this host or a fleet's."""
    fleet = fleet or Here()
    prompts = prompts_of(request)
    model = request.model.path / "model"
    pieces = chat_pieces(model, max(len(prompt.turns) for prompt in prompts))
    state = open_run(request, out_dir, prompts, len(where), fleet)
    todo, failed = state.todo, dict[int, str]()
    if pieces is None:
        progress.note(f"{request.entry}: no chat template: nothing is asked of it")
        failed = {one.row: NO_TEMPLATE for one in todo}
    elif todo:
        chat = load_chat(model, pieces)
        job = generate_job(model, chat, request.sampling, out_dir / WORK, where, on_gpu=fleet.on_gpu)
        failed = too_long(todo, chat, context_of(model, request.sampling) - request.sampling.max_tokens)
        if todo := [one for one in todo if one.row not in failed]:
            failed |= answer_or_say_what_is_kept(state, todo, chat, job, failed)
    result = finish(state, prompts, failed)
    shutil.rmtree(out_dir / WORK, ignore_errors=True)
    return result


def prompts_of(request: GenerateRequest) -> list[Prompt]:
    """The prompts that are asked. ZooError where the file is no longer the one that was meant."""
    read = read_prompts(request.prompts.path)
    if read.digest != request.prompts.fingerprint:
        raise ZooError(f"{request.prompts.path}: other prompts than when this was asked for; give the same command again")
    chosen = choose(read.prompts, request.rows, request.rows_seed)
    return by_chance(chosen, request.rows_seed) if is_limited(request) else chosen


def open_run(request: GenerateRequest, out_dir: Path, prompts: Sequence[Prompt], replicas: int, fleet: Fleet) -> Run:
    """All conversations with what is known of each.

    What this run made on this machine comes before what others made.
    """
    made_by = (engine_version(), fleet.machine)
    chunks = chunk_folder(out_dir, *made_by)
    book = Book()
    for path in sorted(chunks.glob("*.parquet")):
        book.add(read_answers(path), own=True)
    others = [path for path in sorted(out_dir.glob(f"{CHUNKS}/*/*.parquet")) if path.parent != chunks]
    for path in [*others, *earlier_files(request, out_dir)]:
        book.add(read_answers(path), own=False)
    conversations: list[Conversation] = []
    for sample in range(request.samples):
        for prompt in prompts:
            seed = request.seed + sample
            known = book.conversation(prompt.turns, seed)
            conversations.append(Conversation(len(conversations), prompt.id, prompt.turns, seed, known))
    tally = replace(load_tally(chunks), replicas=replicas)
    return Run(request, out_dir, chunks, conversations, book, tally, made_by, fleet)


def too_long(todo: Iterable[Conversation], chat: Chat, most: int) -> dict[int, str]:
    """Conversations whose next question has no room in a context of `most` tokens, by row.

    No engine is needed to say so.
    """
    found = {}
    for one in todo:
        turn = len(one.answers)
        if sum(len(text.encode()) for text in one.said) + sum(map(len, chat.literals[turn])) <= most:
            continue  # no text has more tokens than bytes
        asked = chat.encode(one.turns[: turn + 1])
        if len(context_ids(chat.literals, asked, [answer.ids for answer in one.answers])) > most:
            found[one.row] = f"{TOO_LONG}: turn {turn + 1}"
    return found


def answer_or_say_what_is_kept(
    state: Run, todo: Sequence[Conversation], chat: Chat, job: GenerateJob, failed: Mapping[int, str]
) -> dict[int, str]:
    """`answer_all`, unless a ceiling is reached already.

    Where engines are given up, the error says what was kept. How to go on, the runner says.
    """
    spent = spent_seconds(state.request, state.folder)
    if not reach_of(state, failed, spent, lambda: 0.0).may_begin(todo[0].row):
        return {}
    try:
        return answer_all(state, todo, chat, job, failed, spent)
    except EngineError as error:
        kept = sum(len(read_answers(file)) for file in state.chunks.glob("*.parquet"))
        raise EngineError(f"{error}; {kept:,} answers are kept") from error


def reach_of(state: Run, failed: Mapping[int, str], spent: float, now: Callable[[], float]) -> Reach:
    """How far the run may go.

    `spent`: seconds of replicas before it; `now`: seconds of the run itself, of one replica.
    """
    request = state.request
    if not is_limited(request):
        return Reach()
    hours, replicas = request.gpu_hours, max(1, state.tally.replicas)
    left = None if hours is None else (lambda: (hours * 3600 - spent) / replicas - now())
    return Reach(request.accept, usable_before(statuses(state, failed)), left)


def statuses(state: Run, failed: Mapping[int, str]) -> list[str | None]:
    """What is known of each row; None of those that are not over."""
    return [failed.get(one.row) or (status_of(one.answers) if is_over(one) else None) for one in state.conversations]


def answer_all(
    state: Run, todo: Sequence[Conversation], chat: Chat, job: GenerateJob, failed: Mapping[int, str], spent: float
) -> dict[int, str]:
    """Have the conversations held to their ends, as far as ceilings let them.

    Returns why some of them ended before, by row.
    """
    tally, before = state.tally, (state.tally.run_seconds, state.tally.restarts)
    missing = sum(len(one.turns) - len(one.answers) for one in todo[: state.request.accept])
    known = sum(len(one.answers) for one in state.conversations)
    progress.note(
        f"loading {state.request.model.path.name} into {state.made_by[0]}; {missing:,} answers to make, {known:,} known"
    )
    begun: float | None = None
    loads: dict[int, float] = {}
    with ExitStack() as stack:
        crew = stack.enter_context(Crew(job, command=COMMAND, fleet=state.fleet))
        bar = stack.enter_context(progress.AnswerBar(missing))

        def ready(replica: int, seconds: float, memory: Mapping[str, int]) -> None:
            nonlocal begun
            tally.see_memory(memory)
            if begun is None:
                begun = time.monotonic()
                bar.begin()
            loads.setdefault(replica, crew.lead_seconds + seconds)
            tally.load_seconds = max(loads.values())

        def heard(answers: int, tokens: int) -> None:
            tally.run_seconds = before[0] + time.monotonic() - (begun or time.monotonic())
            tally.restarts = before[1] + crew.restarts
            bar.update(answers, tokens)

        def taken() -> float:
            return 0.0 if begun is None else max(loads.values()) + time.monotonic() - begun

        writer = ChunkWriter(state.chunks, state.request.chunk_answers, tally)
        stack.callback(writer.flush)
        work = GenerateWork(
            todo,
            chat,
            state.book,
            writer,
            made_by=state.made_by,
            replicas=len(job.places),
            note=progress.note,
            ready=ready,
            heard=heard,
            tally=tally,
            ahead=AHEAD if state.fleet.on_gpu else CPU_AHEAD,
            reach=reach_of(state, failed, spent, taken),
        )
        crew.run(work)
    return work.failed


def finish(state: Run, prompts: Sequence[Prompt], failed: Mapping[int, str]) -> StageResult:
    """The rows of all conversations, every answer in one file, and the counts."""
    by_id = {prompt.id: prompt for prompt in prompts}
    known = statuses(state, failed)
    reached = rows_reached(known, state.request.accept)
    if not reached:
        spent = spent_seconds(state.request, state.folder) / 3600
        raise ZooError(f"--gpu-hours {state.request.gpu_hours:g}: {spent:.3f} are spent, and no row is answered; give more")
    over = state.conversations[:reached]
    rows = [Row(by_id[one.prompt], one.seed, one.answers, known[one.row] or "") for one in over]
    write_rows(rows, state.request, state.folder / ANSWERS)
    answers = unique(one.answers for one in over)
    if reused := [answer for answer in answers if not state.book.is_own(answer)]:
        write_answers(reused, state.folder / REUSED)  # else they would be lost to others with the artifact that they are from
    return StageResult(metrics=counts(state, rows, answers), measurements=measurements(state, rows, answers))


def unique(each: Iterable[Sequence[Answer]]) -> list[Answer]:
    """Answers of all conversations, once where two begin alike."""
    return list({(answer.context, answer.seed): answer for answers in each for answer in answers}.values())


def made_tokens(state: Run, answers: Sequence[Answer]) -> int:
    return sum(len(answer.ids) for answer in answers if state.book.is_own(answer))


def counts(state: Run, rows: Sequence[Row], answers: Sequence[Answer]) -> dict[str, float]:
    """For the manifest: rows by status, answers made and reused, tokens and their speed."""
    own, tokens, seconds = sum(map(state.book.is_own, answers)), made_tokens(state, answers), state.tally.run_seconds
    slugs = [status_slug(row.status) for row in rows]
    on_gpus = state.fleet.on_gpu
    return {
        "generate/rows": len(rows),
        "generate/made": own,
        "generate/reused": len(answers) - own,
        "generate/tokens": tokens,
        "generate/tokens_per_second": tokens / seconds if seconds else 0.0,
        "generate/gpu_seconds": (state.tally.load_seconds + seconds) * state.tally.replicas if on_gpus else 0.0,
        **{f"generate/{slug}_rows": float(slugs.count(slug)) for slug in sorted(set(slugs))},
        **({"generate/not_asked_rows": float(left)} if (left := len(state.conversations) - len(rows)) else {}),
        **state.tally.metrics(),
    }


def measurements(state: Run, rows: Sequence[Row], answers: Sequence[Answer]) -> Measurements:
    tally = state.tally
    return Measurements(
        load_seconds=tally.load_seconds,
        run_seconds=tally.run_seconds,
        rows=len(rows),
        tokens=made_tokens(state, answers),
        peak_bytes=tally.card_bytes,
    )
