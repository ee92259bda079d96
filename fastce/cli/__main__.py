"""`python -m fastce.cli` is the command line."""

from fastce.cli import main

main()
