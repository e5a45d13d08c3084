"""The command line: one verb per file, and nothing heavy is imported before a verb runs."""

from deeptalk.cli.app import app, main

__all__ = ["app", "main"]
