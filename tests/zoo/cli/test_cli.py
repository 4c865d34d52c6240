"""The command line as a user meets it: quick help, one-line errors with exit codes, and nothing hidden by one broken file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "vllm", "mlflow", "optuna", "sklearn", "pandas", "transformers")


def run(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


@pytest.mark.parametrize("module", ["zoo", "ensemble"])
def test_help_imports_nothing_heavy(module: str) -> None:
    program = f"""
import runpy, sys
sys.argv = ["{module}", "--help"]
try:
    runpy.run_module("{module}", run_name="__main__")
except SystemExit:
    pass
print("HEAVY", [name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "HEAVY []" in done.stdout, done.stdout[-300:] + done.stderr[-300:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "lexcal", "--data", "b.csv"), "lexical"),
        (("run", "lexical", "--data", "none.csv"), "none.csv: no such file"),
        (("run", "lexical", "--data", "none.csv", "--fold", "9"), "folds are numbered 0 to 4"),
        (("run", "lexical", "--data", "none.csv", "--set", "lexical.foldz=3"), "foldz"),
        (("check", "lexical", "--target", "t4x3"), "t4x2"),
        (("data", "sample", "/proc/none/x.csv"), "/proc/none"),
        (("data", "stats", "none.csv"), "none.csv"),
    ],
)
def test_errors_are_one_line_that_names_the_thing(arguments: tuple[str, ...], message: str) -> None:
    done = run("zoo", *arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]


def test_debug_shows_the_traceback() -> None:
    done = run("zoo", "--debug", "run", "lexical", "--data", "none.csv")
    assert "Traceback" in done.stderr and done.returncode != 0


def test_a_broken_entry_is_listed_beside_the_others(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text('name = "bad"\nkindd = "lexical"\n')
    done = run("zoo", "list", ZOO_ENTRIES=str(tmp_path))
    assert done.returncode == 0
    assert "kindd" in done.stdout and "smollm2-135m" in done.stdout
