"""The command line: each command is one library call."""

from lighten.cli import costs, jobs, networks  # their commands
from lighten.cli.app import main

__all__ = ["costs", "jobs", "main", "networks"]
