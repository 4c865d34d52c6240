"""`zoo target`: machines to predict on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.base import MACHINES, AsJson, Output, add_commands, complete_target, new_group, say, style_of
from zoo.report.text import Cell, Column, Format, Table, digits, show

if TYPE_CHECKING:
    from zoo.targets import Rates, Target

GIB = 2**30
RATE_COLUMNS = [Column("rate"), Column("declared", form=digits(4)), Column("measured", form=digits(4))]
OwnOrKnown = Annotated[
    str | None,
    typer.Argument(help="Write it under this name; without one, only print it.", autocompletion=complete_target),
]


def list_(output: Output = Format.table, as_json: AsJson = False) -> None:
    """Every target, what is declared of it, and where its file is.

    Example: zoo target list
    """
    from zoo.targets import read_targets, target_files

    style, (targets, broken), files = style_of(output, as_json), read_targets(), target_files()
    rows = [[*target_row(target), str(_place(files[target.name]))] for target in targets]
    rows += [[name, *[None] * 6, f"cannot be used: {error}", str(_place(files[name]))] for name, error in broken.items()]
    columns = [
        Column("target"),
        Column("GPUs", "gpus"),
        Column("GiB each", "device_bytes", lambda size: f"{size / GIB:.1f}"),
        Column("capability", "compute_capability", drop=3),
        Column("dtypes", drop=4, prose=True),
        Column("TFLOP/s", "flop_per_second", lambda rate: digits(3)(rate / 1e12), drop=1),
        Column("rate is", "rate_is", drop=2),
        Column("what", "description", prose=True),
        Column("file", drop=5),
    ]
    records = [target.model_dump(mode="json") for target in targets]
    records += [{"name": name, "error": str(error)} for name, error in broken.items()]
    show([Table(columns, rows)], style, data=records)


def target_row(target: Target) -> list[Cell]:
    """Cells of a target.

    Name, GPUs, bytes, capability, dtypes, matmul rate and where it is from, description.
    """
    from zoo.targets import matmul_rate

    rate = matmul_rate(target)
    capability = ".".join(map(str, target.compute_capability or ())) or "none"
    known = ("not known" if rate is None else "measured" if rate[1] else "declared",)
    return [
        *(target.name, target.gpus, target.device_bytes, capability, ", ".join(target.dtypes)),
        *(rate[0] if rate else None, *known, target.description),
    ]


def _place(path: Path) -> Path | str:
    from zoo.targets import PACKAGE_FOLDER

    return "package" if path.parent == PACKAGE_FOLDER else path


def show_(
    name: Annotated[str, typer.Argument(help="Target, one of `zoo target list`.", autocompletion=complete_target)],
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """A target's settings, and its rates as declared and as measured.

    Example: zoo target show t4x2
    """
    from zoo.targets import load_target

    style, target = style_of(output, as_json), load_target(name)
    plain = target.model_dump(mode="json", exclude={"declared", "measured"}, exclude_none=True)
    settings: list[list[Cell]] = [[key, str(value)] for key, value in plain.items() if value != ""]
    page: list[str | Table] = [
        Table([Column("setting"), Column("value", prose=True)], settings),
        "",
        Table(RATE_COLUMNS, rate_rows(target.declared, target.measured)),
    ]
    show(page, style, data=target.model_dump(mode="json"))


def rate_rows(declared: Rates, measured: Rates) -> list[list[Cell]]:
    """One row a rate: its name with unit, as declared, as measured; None where it is not known."""

    def cell(value: float | None, unit: float) -> float | None:
        return None if value is None else value / unit

    dtypes = sorted({*declared.matmul_flop_per_second, *measured.matmul_flop_per_second})
    rows: list[list[Cell]] = [
        [f"matmul {dtype}, TFLOP/s", *(cell(r.matmul_flop_per_second.get(dtype), 1e12) for r in (declared, measured))]
        for dtype in dtypes
    ]
    attention = [cell(r.attention_flop_per_second, 1e12) for r in (declared, measured)]
    rows.append(["attention, TFLOP/s", *attention])
    names = {
        "memory, GB/s": "memory_bytes_per_second",
        "host to device, GB/s": "host_to_device_bytes_per_second",
        "disk, GB/s": "disk_bytes_per_second",
    }
    return [*rows, *([name, *(cell(getattr(r, key), 1e9) for r in (declared, measured))] for name, key in names.items())]


def measure(
    name: OwnOrKnown = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only what forecasts need most: matmul, attention, loading. Nothing is written.")
    ] = False,
    read: Annotated[Path | None, typer.Option("--read", help="With --quick: a file to time, as weights on a mount.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure this machine's rates in under a minute.

    Matmul by dtype, memory, host to device, disk.

    With the name of a known target, its file is copied to `ZOO_HOME/targets` with the rates filled in; a new name makes a new
    target of this machine. Keep the machine otherwise idle.

    Example: zoo target measure

    Example: zoo target measure cpu

    Example: zoo target measure --quick --json
    """
    from zoo.errors import ZooError

    style = style_of(Format.table, as_json)
    if quick:
        if name is not None:
            raise ZooError(f"--quick {name}: writes nothing; leave the name out, and `zoo target import` what it prints")
        _measure_quickly(read, style)
        return
    if read is not None:
        raise ZooError("--read: is for --quick")
    from zoo.entries.toml import contract_toml
    from zoo.stages.rates.target import measure_target, write_target

    target = measure_target(name)
    page = [contract_toml(target).rstrip() if name is None else str(write_target(target))]
    show(page, style, data=target.model_dump(mode="json"))


def _measure_quickly(read: Path | None, style: Format) -> None:
    from zoo.stages.rates.quick import quick_measurement
    from zoo.targets import Rates

    found = quick_measurement(read)
    rows = [[row[0], row[2]] for row in rate_rows(Rates(), found.rates) if row[2] is not None]
    title = f"{found.machine}: target {found.target}, measured in {found.seconds:.0f} s"
    show([title, "", Table(RATE_COLUMNS[::2], rows)], style, data=found.model_dump(mode="json"))


def import_(
    file: Annotated[Path, typer.Argument(help="predict.json of a notebook, or what measure --quick --json printed.")],
) -> None:
    """Take rates home that a machine elsewhere measured of itself.

    Forecasts for its target rest on them then. They are written to `ZOO_HOME/targets`, in the place of what the target had
    measured before.

    Example: zoo target import out/predict.json
    """
    from zoo.stages.rates.target import write_target
    from zoo.targets import load_target
    from zoo.targets.quick import read_rates, with_rates

    found = read_rates(file)
    target = with_rates(load_target(found.target), found)
    say(f"{found.machine}, measured {found.measured_at}")
    typer.echo(str(write_target(target)))


target_app = new_group(
    """Machines to predict on: those of the package, and your own.

    A target is one TOML file, NAME.toml, in `ZOO_HOME/targets` or a folder of `ZOO_TARGETS` (colon separated); it comes
    before the package's of the same name.

    Example: zoo target measure my-machine

    Example: zoo cost llama-3-8b --target my-machine --lengths test.csv
    """
)
add_commands(target_app, {MACHINES: (list_, show_, measure, import_)})
