"""What lint and audit hold back: a credential in any file, and an audit that audited nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import audit
from tests.helpers.paths import ROOT

# In pieces, or this file would be held back itself.
PLANTED = {
    "AWS key": "aws = '" + "AKIA" + "IOSFODNN7" + "EXAMPLF'",
    "hub token": "token = '" + "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789'",
    "password in a URI": "uri = 'postgresql://zoo:" + "tr0ub4dor-and-3@db.example.org/zoo'",
    "private key": "-----BEGIN " + "RSA PRIVATE KEY-----",
}


def scan(path: Path) -> subprocess.CompletedProcess[str]:
    hook = Path(sys.executable).with_name("detect-secrets-hook")
    command = [str(hook), "--no-verify", "--baseline", ".secrets.baseline", str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_credential_is_held_back(kind: str, tmp_path: Path) -> None:
    (tmp_path / "settings.py").write_text(f"{PLANTED[kind]}\n")
    done = scan(tmp_path / "settings.py")
    assert done.returncode == 1 and "settings.py:1" in done.stdout, done.stdout + done.stderr


def test_an_ordinary_file_passes(tmp_path: Path) -> None:
    (tmp_path / "settings.py").write_text('name = "preference-zoo"\nfingerprint = "see the manifest"\n')
    assert scan(tmp_path / "settings.py").returncode == 0


def test_an_audit_that_reached_nobody_is_not_a_clean_one(capsys: pytest.CaptureFixture[str]) -> None:
    skipped = {"name": "numpy", "skip_reason": "Dependency not found on PyPI and could not be audited: numpy (2.3.4)"}
    clean = {"name": "scipy", "version": "1.16.0", "vulns": []}
    bad = {"name": "jinja2", "version": "3.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.1.6"]}]}
    assert audit.report([skipped, skipped]) == 2
    assert "nothing was audited" in capsys.readouterr().err
    assert audit.report([skipped, clean]) == 0
    assert "1 of 2 packages audited, 0 with known" in capsys.readouterr().out
    assert audit.report([skipped, clean, bad]) == 1
    assert "jinja2 3.0: PYSEC-1; fixed in 3.1.6" in capsys.readouterr().out
