"""The command ``everlearn``."""

from everlearn.cli.commands import app, main

__all__ = ["app", "main"]
