"""`python job/script [look|prepare|predict]`: one stage, or all of them one after the other."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.dont_write_bytecode = True  # inputs are read-only where they are mounted, and stay as they are where they are not
    here = Path(__file__).resolve().parent
    sys.path[0] = str(here.parent)  # so that this folder, whatever its name, is a package
    sys.exit(importlib.import_module(f"{here.name}.stages").main(sys.argv[1:]))
