"""Reading what people write: one bad TOML file is named in one line and hides no other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zoo.contracts import Contract, Entry
from zoo.cost.published import Published
from zoo.entries.load import load_entry, override, read_entry
from zoo.errors import ZooError
from zoo.experiments.recipes import Recipe, load_recipe
from zoo.report.text import Format, as_text
from zoo.report.views import entries_page
from zoo.settings import Settings, entry_folders, load_settings, read_toml
from zoo.targets import load_target
from zoo.targets.load import Target, read_targets

DEEP = 20_000
BAD = {
    "arrays": ("x = " + "[" * DEEP + "]" * DEEP, "nested too deeply"),
    "tables": ("x = " + "{a = " * DEEP + "1" + "}" * DEEP, "nested too deeply"),
    "dotted": (".".join("a" * 2_000) + " = 1", "unknown key `a`"),
    "number": ("version = " + "9" * 5000, "not TOML: Exceeds the limit"),
    "bytes": (b"name = '\xff'", "not TOML"),
    "utf-16": ("name = 'x'".encode("utf-16"), "not TOML"),
    "nul": (b"\0" * 100, "not TOML"),
    "escape": ("\x1b[2J = 1", "not TOML"),
}


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("kind", [Entry, Target, Recipe, Settings, Published])
@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_bad_files_of_every_kind_are_one_line(tmp_path: Path, kind: type[Contract], text: str | bytes, message: str) -> None:
    path = write(tmp_path / "x.toml", text)
    with pytest.raises(ZooError) as caught:
        read_toml(path, kind)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_a_byte_order_mark_is_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lexical = (entry_folders()[0] / "lexical.toml").read_bytes()
    assert read_entry(write(tmp_path / "lexical.toml", b"\xef\xbb\xbf" + lexical)) == load_entry("lexical")
    monkeypatch.setenv("ZOO_SETTINGS", str(write(tmp_path / "s.toml", b'\xef\xbb\xbf[environments]\ntrain = "/python"\r\n')))
    assert load_settings().environments == {"train": Path("/python")}
    write(tmp_path / "recipe.toml", b'\xef\xbb\xbfquestion = "?"\ndata = "b.csv"\nruns = [{ entry = "lexical" }]\n')
    assert load_recipe(tmp_path).data == "b.csv"
    cpu = Path(load_target.__code__.co_filename).with_name("cpu.toml").read_bytes()
    assert load_target(str(write(tmp_path / "cpu.toml", b"\xef\xbb\xbf" + cpu))) == load_target("cpu")


def test_bad_files_hide_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no file, leads nowhere, or is too deep or too large: each named as it is, the good one among them used."""
    for variable in ("ZOO_ENTRIES", "ZOO_TARGETS"):
        monkeypatch.setenv(variable, str(tmp_path))
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "broken.toml").symlink_to(tmp_path / "nowhere")
    (tmp_path / "circle.toml").symlink_to("circle.toml")
    (tmp_path / "endless.toml").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "fifo.toml")
    with (tmp_path / "huge.toml").open("wb") as file:
        file.truncate(2**30)
    broken_names = {"folder", "deep", "broken", "circle", "endless", "fifo", "huge"}
    write(tmp_path / "deep.toml", "x = " + "[" * DEEP)
    write(tmp_path / "marked.toml", b'\xef\xbb\xbfname = "marked"\nkind = "lexical"\n[lexical]\n')
    shown = as_text(entries_page()[0], Format.markdown)
    assert "| marked | lexical |" in shown and "| smollm2-135m |" in shown
    for name in broken_names:
        assert f"cannot be used: {tmp_path / name}.toml: " in shown
    targets, broken = read_targets()
    assert {"t4x2", "cpu"} <= {target.name for target in targets} and broken_names <= set(broken)
    with pytest.raises(ZooError, match=r"folder\.toml: cannot be read \(Is a directory\)"):
        load_entry("folder")


@pytest.mark.parametrize("value", ["[" * DEEP, "9" * 5000])
def test_a_setting_that_no_toml_reader_takes_is_text(value: str) -> None:
    """As a recipe of somebody else may hold it."""
    with pytest.raises(ZooError, match=r"--set: `train\.epochs`"):
        override(load_entry("smollm2-135m"), [f"train.epochs={value}"])
