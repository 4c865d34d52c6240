"""Bad inputs of every command, as data: tests/bad_inputs.toml, each row's exit code and what its one line must name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from ensemble.cli import app as ensemble_app
from tests.helpers.bad_inputs import MEMBER, Row, faults, rows, run_row, write_good_files
from zoo.cli.main import app as zoo_app

ROWS = rows()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "good"
    write_good_files(folder)
    return folder


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory, good: Path) -> dict[str, Path]:
    """Homes that rows start with: `member` has an imported member's table, which no tracking has seen."""
    from zoo.pipeline.import_table import import_scores

    home = tmp_path_factory.mktemp("homes") / "member"
    price = {"target": "cpu", "load_seconds": 1.0, "seconds_per_row": 0.01}
    import_scores(MEMBER, good / "scores.csv", good / "battles.csv", store=home / "store", **price)
    return {"member": home}


def marked(row: Row) -> object:
    marks = [pytest.mark.slow] if row.slow else []
    return pytest.param(row, id=row.name, marks=marks)


@pytest.mark.parametrize("row", [marked(row) for row in ROWS])
def test_a_bad_input_is_one_line(row: Row, tmp_path: Path, good: Path, homes: dict[str, Path]) -> None:
    before = {path: path.read_bytes() for path in good.iterdir()}
    done = run_row(row, tmp_path, good, homes)
    assert faults(row, done) == [], f"{row.run}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    assert {path: path.read_bytes() for path in good.iterdir()} == before, "an input was changed"


def test_the_table_is_whole() -> None:
    assert len(ROWS) >= 150 and sum(row.process for row in ROWS) >= 10
    assert [name for name, count in Counter(row.name for row in ROWS).items() if count > 1] == []
    assert [row.name for row in ROWS if row.code and not row.names] == [], "each says what its line must name"


def test_every_command_and_option_has_a_row() -> None:
    lines = [row.run.split() for row in ROWS]
    for words, command in [*_commands(["zoo"], zoo_app), *_commands(["ensemble"], ensemble_app)]:
        own = [line for line in lines if line[: len(words)] == words]
        assert own, f"no row of {' '.join(words)}"
        for parameter in command.params:
            names = {name for name in parameter.opts if name.startswith("--")} - COMMON
            if names and not parameter.hidden:
                assert any(set(parameter.opts) & set(line) for line in own), f"no row of {' '.join(words)} {sorted(names)}"


COMMON = {"--help", "--version", "--json", "--debug", "--install-completion", "--show-completion", "--format"}


def _commands(words: list[str], app: object) -> Iterator[tuple[list[str], object]]:
    def below(words: list[str], command: object) -> Iterator[tuple[list[str], object]]:
        children = getattr(command, "commands", {})
        if not children:
            yield words, command
        for name, child in children.items():
            yield from below([*words, name], child)

    yield from below(words, typer.main.get_command(app))
