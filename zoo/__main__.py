"""`python -m zoo` runs the command line of this interpreter."""

from zoo.cli.main import main

main()
