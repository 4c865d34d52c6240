"""`python -m ensemble` runs the command line of this interpreter."""

from ensemble.cli import main

main()
