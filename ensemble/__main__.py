"""`python -m ensemble`: the command line of this interpreter."""

from ensemble.cli import main

main()
