"""`zoo target`: machines to predict on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from zoo.targets import Rates, Target

target_app = typer.Typer(
    help="Machines to predict on: those of the package, and your own.\n\n"
    "A target is one TOML file, NAME.toml, in `ZOO_HOME/targets` or a folder of `ZOO_TARGETS` (colon separated); it comes "
    "before the package's of the same name.\n\n"
    "Example: zoo target measure my-machine; zoo cost llama-3-8b --target my-machine --lengths test.csv",
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="Everything as JSON on stdout.")]


@target_app.command("list")
def list_(as_json: AsJson = False) -> None:
    """Every target, what is declared of it, and where its file is."""
    from zoo.report.text import text_table
    from zoo.targets import read_targets, target_files

    targets, broken = read_targets()
    if as_json:
        typer.echo(json.dumps([target.model_dump(mode="json") for target in targets], indent=1))
        return
    files = target_files()
    rows = [[*target_row(target), str(_place(files[target.name]))] for target in targets]
    headers = ["target", "GPUs", "GiB each", "capability", "dtypes", "TFLOP/s", "what", "file"]
    rows += [[name, *[""] * 5, f"cannot be used: {error}", str(_place(files[name]))] for name, error in broken.items()]
    typer.echo(text_table(headers, rows))


def target_row(target: Target) -> list[str]:
    """Cells of a target.

    Name, GPUs, memory, capability, dtypes, matmul rate with its origin, description.
    """
    from zoo.targets import matmul_rate

    rate = matmul_rate(target)
    return [
        target.name,
        str(target.gpus),
        f"{target.device_bytes / 2**30:.1f}",
        ".".join(map(str, target.compute_capability or ())) or "none",
        ", ".join(target.dtypes),
        "not known" if rate is None else f"{rate[0] / 1e12:.3g} {'measured' if rate[1] else 'declared'}",
        target.description,
    ]


def _place(path: Path) -> Path | str:
    from zoo.targets import PACKAGE_FOLDER

    return "package" if path.parent == PACKAGE_FOLDER else path


@target_app.command()
def show(name: Annotated[str, typer.Argument(help="Target, one of `zoo target list`.")], as_json: AsJson = False) -> None:
    """A target's settings, and its rates as declared and as measured.

    Example: zoo target show t4x2
    """
    from zoo.report.text import text_table
    from zoo.targets import load_target

    target = load_target(name)
    if as_json:
        typer.echo(target.model_dump_json(indent=1))
        return
    plain = target.model_dump(mode="json", exclude={"declared", "measured"}, exclude_none=True)
    typer.echo(text_table(["setting", "value"], [[key, str(value)] for key, value in plain.items() if value != ""]))
    typer.echo("\n" + text_table(["rate", "declared", "measured"], rate_rows(target.declared, target.measured)))


def rate_rows(declared: Rates, measured: Rates) -> list[list[str]]:
    """One row a rate: its name with unit, as declared, as measured."""

    def cell(value: float | None, unit: float) -> str:
        return "not known" if value is None else f"{value / unit:.4g}"

    dtypes = sorted({*declared.matmul_flop_per_second, *measured.matmul_flop_per_second})
    rows = [
        [f"matmul {dtype}, TFLOP/s", *(cell(r.matmul_flop_per_second.get(dtype), 1e12) for r in (declared, measured))]
        for dtype in dtypes
    ]
    names = {
        "memory, GB/s": "memory_bytes_per_second",
        "host to device, GB/s": "host_to_device_bytes_per_second",
        "disk, GB/s": "disk_bytes_per_second",
    }
    return [*rows, *([name, *(cell(getattr(r, key), 1e9) for r in (declared, measured))] for name, key in names.items())]


@target_app.command()
def measure(
    name: Annotated[str | None, typer.Argument(help="Write it under this name; without one, only print it.")] = None,
) -> None:
    """Measure this machine's rates in under a minute.

    Matmul by dtype, memory, host to device, disk.

    With the name of a known target, its file is copied to `ZOO_HOME/targets` with the rates filled in; a new name makes a new
    target of this machine. Keep the machine otherwise idle.

    Example: zoo target measure

    Example: zoo target measure cpu
    """
    from zoo.report.views import entry_toml
    from zoo.stages.rates.target import measure_target, write_target

    target = measure_target(name)
    typer.echo(entry_toml(target) if name is None else write_target(target))
