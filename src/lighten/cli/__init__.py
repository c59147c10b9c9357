"""The command line: each command is one library call."""

from lighten.cli import jobs, networks  # their commands
from lighten.cli.app import main

__all__ = ["jobs", "main", "networks"]
