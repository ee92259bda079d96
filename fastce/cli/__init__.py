"""The command line. Torch is imported only when a command needs it."""

from fastce.cli import commands, corpus, export, serve
from fastce.cli.app import app, main

__all__ = ["app", "commands", "corpus", "export", "main", "serve"]
