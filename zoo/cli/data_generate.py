"""`zoo data generate`: answers of local models to prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.app import RunnerName
from zoo.cli.base import AsJson, Output, complete_entry, say, style_of
from zoo.cli.installed import check_installed
from zoo.report.text import Format, show


def generate(
    prompts: Annotated[Path, typer.Argument(help="Battles, a log, or JSONL with `prompt` or `conversation`.")],
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            help="An entry (its base weights), ENTRY@merge, ENTRY@quantize, or an artifact. Repeatable.",
            autocompletion=complete_entry,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Answers to write: .jsonl, .jsonl.gz or .parquet.")],
    rows: Annotated[int | None, typer.Option("--rows", min=1, help="At most this many prompts, a sample.")] = None,
    rows_seed: Annotated[int, typer.Option("--rows-seed", min=0, help="Which sample of the prompts.")] = 0,
    samples: Annotated[int, typer.Option("--samples", min=1, max=1024, help="Answers to each prompt, by as many seeds.")] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="The first of the seeds.")] = 0,
    temperature: Annotated[float, typer.Option("--temperature", min=0, max=2, help="0: no chance.")] = 0.7,
    top_p: Annotated[float, typer.Option("--top-p", help="Draw from the likeliest tokens of this share.")] = 0.95,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Of one answer; a longer one is cut.")] = 1024,
    accept: Annotated[
        int | None, typer.Option("--accept", min=1, help="End each model at so many rows with usable answers.")
    ] = None,
    gpu_hours: Annotated[
        float | None, typer.Option("--gpu-hours", help="Begin nothing after so many hours of cards, of each model.")
    ] = None,
    licence: Annotated[str | None, typer.Option("--licence", help="Of prompts that name none.")] = None,
    runner: RunnerName = None,
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Have local models answer the prompts of a file, turn by turn, in each model's chat format.

    The answers make a log in the shape of LMSYS-Chat-1M, every row with a status. An answer is never made twice: what a killed
    run, or another file, had answered already is taken from the store, whichever prompts it was for.

    Example: zoo data generate prompts.jsonl --model smollm2-135m --model qwen2.5-coder-1.5b --licence CC-BY-4.0 -o log.jsonl

    With a ceiling prompts are asked in the order of their hashes; a larger one goes on, and makes nothing again.

    Example: zoo data generate battles.csv --model smollm2-135m --rows 500 --samples 2 --licence mine -o answers.parquet

    Example: zoo data generate prompts.jsonl --model smollm2-135m --accept 5000 --gpu-hours 2 --licence mine -o answers.jsonl
    """
    from zoo.contracts import Sampling
    from zoo.data.made import beside
    from zoo.data.prompts import read_prompts
    from zoo.errors import ZooError
    from zoo.experiments.generate import check_format, generate_answers, write_log
    from zoo.pipeline.generators import Asked, generators
    from zoo.pipeline.runners.session import running_on
    from zoo.report.generated import generated_page, generated_record
    from zoo.settings import store_folder
    from zoo.store import check_output

    check_installed()
    style, store = style_of(output, as_json), store_folder()
    check_format(out)
    for path in (out, beside(out)):
        check_output(path, prompts)
    if not 0 < top_p <= 1:
        raise ZooError(f"--top-p {top_p}: a share of probability, above 0 and at most 1")
    if gpu_hours is not None and not 0 < gpu_hours < float("inf"):
        raise ZooError(f"--gpu-hours {gpu_hours}: give hours above 0")
    read = read_prompts(prompts)
    models = generators(model, store)
    say(f"{prompts}: {read.told}")
    sampling = Sampling(temperature=temperature, top_p=top_p, max_tokens=max_tokens)
    asked = Asked(read, sampling, rows, rows_seed, samples, seed, licence, accept, gpu_hours)
    with running_on(runner, store, say):
        artifacts = generate_answers(models, asked, store, say=say)
    report = write_log(artifacts, read, out)
    show(generated_page(artifacts, out, report["rows"]), style, data=[generated_record(artifact) for artifact in artifacts])
