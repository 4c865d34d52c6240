"""Every command of both programs: help, its example, shell completion, formats and one-line errors, alike everywhere."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from ensemble.cli import app as ensemble_app
from zoo.cli import base
from zoo.cli.main import app as zoo_app

PROGRAMS = {"zoo": typer.main.get_command(zoo_app), "ensemble": typer.main.get_command(ensemble_app)}
TABLES = [
    *("zoo verify", "zoo du"),
    *(
        "zoo list",
        "zoo leaderboard",
        "zoo check",
        "zoo cost",
        "zoo ladder",
        "zoo caps",
        "zoo experiment",
        "zoo run",
        "zoo fetch",
    ),
    *("zoo target list", "zoo target show", "zoo data validate", "zoo data stats", "zoo register"),
    *("ensemble build", "ensemble show", "ensemble frontier", "ensemble evaluate"),
]


def leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Every command below one, by its words."""
    yield name, command
    for word, child in getattr(command, "commands", {}).items():
        yield from leaves(f"{name} {word}", child)


COMMANDS = dict(pair for name, program in PROGRAMS.items() for pair in leaves(name, program))


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120)


def examples(command: Any) -> list[str]:
    return [line.removeprefix("Example: ") for line in (command.help or "").splitlines() if line.startswith("Example: ")]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_parses(name: str) -> None:
    found = examples(COMMANDS[name])
    assert found and (found[0] == name or found[0].startswith(f"{name} ")), "the first example is of the command itself"
    for line in found:
        words = shlex.split(line)
        known, command = words[0], PROGRAMS[words.pop(0)]
        while words and words[0] in getattr(command, "commands", {}):
            known, command = f"{known} {words[0]}", command.commands[words.pop(0)]
        assert known in COMMANDS and not getattr(command, "commands", None), line
        options = {opt for parameter in command.params for opt in parameter.opts}
        assert [word for word in words if word.startswith("-") and word not in options] == [], line
        command.make_context(known, words, resilient_parsing=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_help_without_flag_types(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """`-h` and `--help` alike, with the example in it."""
    monkeypatch.setenv("COLUMNS", "160")
    texts = []
    for flag in ("-h", "--help"):
        program, *words = name.split()
        monkeypatch.setattr(sys, "argv", [program, *words, flag])
        with pytest.raises(SystemExit) as ended:
            base.run_app(zoo_app if program == "zoo" else ensemble_app, program)
        assert not ended.value.code
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] and "Example: " in texts[0] and "<bool>" not in texts[0] and "\x1b" not in texts[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_breaks_no_word_on_80_columns(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    program, *words = name.split()
    monkeypatch.setattr(sys, "argv", [program, *words, "--help"])
    with pytest.raises(SystemExit):
        base.run_app(zoo_app if program == "zoo" else ensemble_app, program)
    shown = capsys.readouterr().out
    options = [opt for parameter in COMMANDS[name].params if not parameter.hidden for opt in parameter.opts if opt[:2] == "--"]
    assert "…" not in shown and [opt for opt in options if opt not in shown] == []
    assert [word for word in shown.split() if word.startswith("<") and not word.endswith(">")] == []


@pytest.mark.parametrize("name", TABLES)
def test_a_command_that_prints_a_table_has_the_formats(name: str) -> None:
    options = {opt for parameter in COMMANDS[name].params for opt in parameter.opts}
    assert {"--format", "--json"} <= options


def test_commands_stand_in_panels() -> None:
    for program in PROGRAMS.values():
        panels = list(dict.fromkeys(command.rich_help_panel for command in program.commands.values()))
        known = (base.START, base.STAGES, base.MEMBERS, base.MACHINES, base.TRACKING, base.HOME, base.DATA)
        assert panels[0] == base.START and set(panels) <= set(known)


@pytest.mark.parametrize("words", ["zoo", "zoo run", "zoo data", "zoo data sample x.csv", "ensemble", "ensemble show"])
def test_version(words: str) -> None:
    done = run(*words.split(), "--version")
    assert done.returncode == 0 and done.stdout.startswith(f"{words.split()[0]} ") and "Python 3." in done.stdout


def test_a_command_keeps_its_own_version() -> None:
    assert "no scored checkpoint" in run("zoo", "promote", "lexical", "--version", "3").stderr


@pytest.mark.parametrize(
    ("words", "completed"),
    [("zoo show smoll", "smollm2-135m"), ("zoo cost lexical --target t4", "t4x2"), ("ensemble build --target l4", "l4x2")],
)
def test_entries_and_targets_complete(words: str, completed: str) -> None:
    program = words.split()[0]
    environment = {f"_{program.upper()}_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    assert completed in run(program, **environment).stdout.split()


def test_completion_can_be_shown_and_installed() -> None:
    assert "_ZOO_COMPLETE" in run("zoo", "--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1").stdout
    assert "--install-completion" in run("ensemble", "--help").stdout


@pytest.mark.parametrize("place", [0, 2, 4])
def test_debug_may_stand_anywhere(place: int) -> None:
    words = ["run", "lexical", "--data", "none.csv"]
    words.insert(place, "--debug")
    done = run("zoo", *words)
    assert done.returncode != 0 and "Traceback" in done.stderr and "no such file" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("zoo lits", "did you mean 'list'?"),
        ("zoo run lexical", "missing option '--data'; see `zoo run --help`"),
        ("zoo cost lexical --rows none", "invalid value for '--rows'"),
        ("zoo cost lexical --rows 0", "greater than or equal to 1"),
        ("zoo list --format xml", "'table', 'markdown', 'csv', 'json'"),
        ("zoo list --json --format csv", "give one of them"),
        ("zoo show", "missing argument 'name'"),
        ("zoo show lexcal", "did you mean 'lexical'?"),
        ("zoo check lexical --trget t4", "--target"),
        ("ensemble predict plan.json", "give the battles to predict"),
        ("zoo data sample .", "give the name of a file"),
        ("zoo run lexical --data none.csv --average", "give --folds"),
        ("zoo run lexical --data none.csv --average --fold 1 --folds 3", "without --fold"),
        ("ensemble show plan.json --json --html page.html", "give one of them"),
        ("ensemble biuld", "did you mean 'build'?"),
    ],
)
def test_a_user_s_error_is_one_line(words: str, message: str) -> None:
    done = run(*words.split())
    assert done.returncode == 2 and not done.stdout
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ") and message in done.stderr.lower()


def test_a_broken_file_is_in_json_as_in_the_table(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("name = 1")
    for words, variable in ((("list",), "ZOO_ENTRIES"), (("target", "list"), "ZOO_TARGETS")):
        found = json.loads(run("zoo", *words, "--json", **{variable: str(tmp_path)}).stdout)
        (record,) = (record for record in found if record["name"] == "broken")
        assert set(record) == {"name", "error"} and "broken.toml" in record["error"] and len(found) > 1


def test_json_is_data(tmp_path: Path) -> None:
    run("zoo", "data", "sample", str(tmp_path / "b.csv"), "--rows", "50")
    entries = json.loads(run("zoo", "list", "--json").stdout)
    assert next(e for e in entries if e["name"] == "llama-3-8b")["base"]["parameters"] > 8e9
    assert json.loads(run("zoo", "list", "--format", "json").stdout) == entries
    assert json.loads(run("zoo", "leaderboard", "--json").stdout) == []
    assert json.loads(run("zoo", "show", "lexical", "--json").stdout)["kind"] == "lexical"
    assert {f["verdict"] for f in json.loads(run("zoo", "check", "lexical", "--json").stdout)} <= {"ok", "info", "warn", "fail"}
    assert json.loads(run("zoo", "target", "list", "--json").stdout)[0]["gpus"] >= 0
    assert json.loads(run("zoo", "data", "validate", str(tmp_path / "b.csv"), "--json").stdout)["rows"] == 50
    header = run("zoo", "target", "list", "--format", "csv").stdout.splitlines()[0]
    assert header.startswith("target,gpus,device_bytes,")
