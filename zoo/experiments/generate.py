"""Have several models answer the same prompts, and put their answers into one log."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from zoo.contracts import Say
from zoo.data.made import write_report
from zoo.data.prompts import Prompts
from zoo.errors import ZooError
from zoo.pipeline.generators import Asked, Generator, generate_request
from zoo.pipeline.runner import run_stage
from zoo.report.generated import generated_report
from zoo.stages.generate.rows import ANSWERS
from zoo.store import Artifact, artifact_name, file_sha256, find, note_written, replacing

FORMATS = (".jsonl", ".jsonl.gz", ".parquet")


def check_format(out: Path) -> None:
    """ZooError where the name of a log says no format that is written."""
    if not out.name.endswith(FORMATS):
        raise ZooError(f"{out}: answers are written as {', '.join(FORMATS)}; give a name that ends so")


def generate_answers(models: Sequence[Generator], asked: Asked, store: Path, *, say: Say) -> list[Artifact]:
    """One artifact a model, one after the other.

    What is in the store is not made again; every stage is logged to MLflow.
    """
    from zoo.tracking.sync import log_stage

    requests = [generate_request(model, asked) for model in models]  # all are whole before the first takes an hour
    artifacts = []
    for request in requests:
        known = find(store, request)
        say(f"generate {request.entry}: {'in the store' if known else 'running'} ({artifact_name(request)})")
        artifact = known or run_stage(request, store, say=say)
        log_stage(artifact.manifest, artifact.path)
        artifacts.append(artifact)
    return artifacts


def write_log(artifacts: Sequence[Artifact], prompts: Prompts, out: Path) -> dict[str, Any]:
    """All answers as one log, whole or not at all, with a report beside it, which is returned.

    The report comes first and has the log's SHA-256, as that of `zoo.data.made.copy_out`.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    logs = [artifact.path / ANSWERS for artifact in artifacts]
    with replacing(out) as file:
        _write(logs, out.name, file)
        file.flush()
        digest = file_sha256(Path(file.name))
        report = generated_report(artifacts, prompts)
        write_report(report, out, digest)
    note_written(artifacts[0].path.parent, [digest[:16]], out, artifacts)
    return report


def _write(logs: Sequence[Path], name: str, file: IO[bytes]) -> None:
    if name.endswith(".parquet"):
        _write_parquet(logs, file)
    elif name.endswith(".gz"):
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
            _join(logs, packed)
    else:
        _join(logs, file)


def _join(logs: Sequence[Path], file: IO[bytes] | gzip.GzipFile) -> None:
    for log in logs:
        with log.open("rb") as lines:
            shutil.copyfileobj(lines, file)


def _write_parquet(logs: Sequence[Path], file: IO[bytes]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema: Any = None
    writer: Any = None
    for log in logs:
        with log.open() as lines:
            table = pa.Table.from_pylist([json.loads(line) for line in lines], schema=schema)
        if writer is None:
            schema = pa.schema([_typed(field, pa) for field in table.schema])
            writer = pq.ParquetWriter(file, schema)
        writer.write_table(table.cast(schema))
    writer.close()


def _typed(field: Any, pa: Any) -> Any:
    """A column of a first log whose rows say no type, since all of its lists are empty."""
    kinds = {"stop_reasons": pa.string(), "prompt_tokens": pa.int64(), "answer_tokens": pa.int64()}
    return pa.field(field.name, pa.list_(kinds[field.name])) if field.name in kinds else field
