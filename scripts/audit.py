"""`make audit`: known vulnerabilities of the installed packages, by pip-audit.

It asks the Python package index, which needs a network: where that does not answer for a package, it was not audited, and that
is said. Exit code 1 where a package has a known vulnerability, 2 where nothing could be audited.
"""

from __future__ import annotations

import json
import subprocess
import sys


def main() -> int:
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--format",
        "json",
        "--progress-spinner",
        "off",
        "--skip-editable",
        "--timeout",
        "10",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"nothing was audited: {(done.stderr.strip() or 'pip-audit said nothing').splitlines()[-1]}", file=sys.stderr)
        return 2
    return report(packages)


def report(packages: list[dict]) -> int:
    """Say what was found; the exit code."""
    audited = [package for package in packages if "vulns" in package and "skip_reason" not in package]
    if not audited:
        print(f"nothing was audited: the index knows none of {len(packages)} packages; is it reachable?", file=sys.stderr)
        return 2
    bad = [package for package in audited if package["vulns"]]
    for package in bad:
        for found in package["vulns"]:
            mend = f"; fixed in {', '.join(found['fix_versions'])}" if found.get("fix_versions") else ""
            print(f"{package['name']} {package['version']}: {found['id']}{mend}")
    print(f"{len(audited)} of {len(packages)} packages audited, {len(bad)} with known vulnerabilities")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
