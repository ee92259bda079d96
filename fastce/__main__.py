"""`python -m fastce` is the command `fastce`."""

from fastce.cli import main

if __name__ == "__main__":
    main()
