"""Answers on disk, found again by what was said before, model, settings and seed.

A chunk is a file of finished answers, in a folder for each engine and kind of machine: what this run measures is of one of
them. An answer is never made twice: those of earlier runs, finished or not, and of other engines and machines are taken as
they are, and each keeps the name of the engine and machine that made it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from zoo.contracts import GenerateRequest, Request, parse_request
from zoo.errors import ZooError
from zoo.stages import progress
from zoo.store import PARTIAL, REQUEST, list_artifacts, replacing

CHUNKS, REUSED = "chunks", "reused.parquet"


@dataclass(frozen=True)
class Answer:
    """One answer.

    `context`: digest of all that was said before; `prompt`: the id of what is asked in the whole conversation. `ids` are its
    tokens without the one that ended it; `stop`: `stop`, `length` (cut at max_tokens) or `loop`.
    """

    context: str
    seed: int
    prompt: str
    turn: int
    text: str
    ids: tuple[int, ...]
    stop: str
    prompt_tokens: int
    cached_tokens: int
    engine: str
    machine: str


def context_of(said: Sequence[str]) -> str:
    """The digest of texts said in turn, the user's first: 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(list(said)).encode()).hexdigest()[:32]


class Book:
    """Answers of one model with one kind of sampling, found by context and seed.

    The first one of a kind stays.
    """

    def __init__(self) -> None:
        self._answers: dict[tuple[str, int], Answer] = {}
        self._own: set[tuple[str, int]] = set()

    def add(self, answers: Iterable[Answer], *, own: bool) -> None:
        """`own`: made by this very request."""
        for answer in answers:
            key = (answer.context, answer.seed)
            if key not in self._answers:
                self._answers[key] = answer
                self._own |= {key} if own else set()

    def find(self, said: Sequence[str], seed: int) -> Answer | None:
        return self._answers.get((context_of(said), seed))

    def is_own(self, answer: Answer) -> bool:
        return (answer.context, answer.seed) in self._own

    def conversation(self, turns: Sequence[str], seed: int) -> list[Answer]:
        """The answers to a prompt that are known, from the first turn on without a gap."""
        said: list[str] = []
        found: list[Answer] = []
        for turn in turns:
            said.append(turn)
            answer = self.find(said, seed)
            if answer is None:
                return found
            found.append(answer)
            said.append(answer.text)
            if ends(answer):
                return found
        return found


def ends(answer: Answer) -> bool:
    """Whether a conversation ends with an answer: a loop, or one without tokens."""
    return answer.stop not in ("stop", "length") or not answer.ids


def write_answers(answers: Sequence[Answer], path: Path) -> None:
    """A parquet file of answers, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole, text = pa.int64(), pa.string()
    kinds = {"seed": whole, "turn": whole, "prompt_tokens": whole, "cached_tokens": whole, "ids": pa.list_(pa.int32())}
    schema = pa.schema([(name, kinds.get(name, text)) for name in Answer.__dataclass_fields__])
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        pq.write_table(pa.Table.from_pylist([asdict(answer) for answer in answers], schema=schema), file, compression="zstd")


def read_answers(path: Path) -> list[Answer]:
    """The answers of a file.

    None of one that cannot be read, which is told: they are made again.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path, partitioning=None).to_pylist()
        return [Answer(**{**row, "ids": tuple(row["ids"])}) for row in rows]
    except FileNotFoundError:  # a run beside this one has ended, and is found as an artifact next time
        return []
    except (OSError, pa.ArrowException, TypeError, KeyError) as error:
        progress.note(f"left out: {path}: {str(error).splitlines()[0][:200]}")
        return []


def chunk_folder(out_dir: Path, engine: str, machine: str) -> Path:
    """Where the chunks of one engine on one kind of machine are."""
    return out_dir / CHUNKS / hashlib.sha256(f"{engine}\n{machine}".encode()).hexdigest()[:12]


def earlier_files(request: GenerateRequest, out_dir: Path) -> Iterator[Path]:
    """Files of the same model's answers, by the same settings, to other requests of the store.

    The oldest come first: finished ones, and those of runs that were killed or are going on.
    """
    for folder, _ in earlier_folders(request, out_dir):
        yield from _files(folder)


def earlier_folders(request: GenerateRequest, out_dir: Path) -> Iterator[tuple[Path, GenerateRequest]]:
    """The folders of such requests, finished ones first."""
    if out_dir.parent.name != PARTIAL:
        return
    found = [(artifact.path, artifact.manifest.request) for artifact in list_artifacts(out_dir.parent.parent, request.stage)]
    partial = (path for path in sorted(out_dir.parent.glob(f"{request.stage}-*/{REQUEST}")) if path.parent != out_dir)
    for folder, other in (*found, *((path.parent, _read_request(path)) for path in partial)):
        if isinstance(other, GenerateRequest) and _alike(request, other):
            yield folder, other


def _files(folder: Path) -> list[Path]:
    return [*sorted(folder.glob(f"{CHUNKS}/*/*.parquet")), *folder.glob(REUSED)]


def _read_request(path: Path) -> Request | None:
    try:
        return parse_request(path.read_bytes())
    except (OSError, ValueError, ZooError):  # of another version, or removed since
        return None


def _alike(request: GenerateRequest, other: GenerateRequest) -> bool:
    """Whether two requests' answers are the same answers, where context and seed are.

    Of any revision: the second changed the ids of rows, and no answer.
    """
    return (other.model.fingerprint, other.sampling) == (request.model.fingerprint, request.sampling)
